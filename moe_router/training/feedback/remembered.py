"""An encoder that keeps the vectors of texts in a file, so that the learner encodes its anchor once."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from moe_router.gating.encoder import Encoder
from moe_router.gating.weights import Floats

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16


class RememberingEncoder:
    """Encodes what its file does not hold yet; the file is bound to the encoder's identity."""

    def __init__(self, encoder: Encoder, cache_dir: Path) -> None:
        """Reads the file, if there is one; a damaged one counts as none."""
        self._encoder = encoder
        self._file = (
            cache_dir / "feedback" / f"{re.sub('[^A-Za-z0-9.-]+', '-', encoder.identity)}.safetensors"
        )
        self._vectors: dict[bytes, Floats] = {}
        try:
            held = load_file(self._file)
            keys, vectors = held["keys"], held["vectors"]
            if vectors.shape == (len(keys), encoder.hidden):
                self._vectors = {key.tobytes(): row for key, row in zip(keys, vectors, strict=True)}
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError, KeyError) as error:
            logger.warning("%s cannot be read, its texts are encoded anew: %s", self._file, error)

    @property
    def identity(self) -> str:
        """Of the encoder."""
        return self._encoder.identity

    @property
    def hidden(self) -> int:
        """Length of a vector."""
        return self._encoder.hidden

    def encode(self, texts: Sequence[str]) -> Floats:
        """(len(texts), hidden) float32 unit vectors."""
        keys = [_digest(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if new:
            self._vectors.update(zip(new, self._encoder.encode(list(new.values())), strict=True))
        if not keys:
            return np.zeros((0, self.hidden), np.float32)
        return np.stack([self._vectors[key] for key in keys])

    def save(self) -> None:
        """Writes the file anew, whole or not at all.

        Raises:
            OSError: the folder cannot be written to.
        """
        if not self._vectors:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        keys = np.frombuffer(b"".join(self._vectors), np.uint8).reshape(-1, DIGEST_BYTES)
        part = self._file.with_suffix(f".{os.getpid()}.part")
        save_file({"keys": keys.copy(), "vectors": np.stack(list(self._vectors.values()))}, part)
        part.replace(self._file)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()
