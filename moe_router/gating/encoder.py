"""The sentence encoder: texts to unit vectors, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moe_router.assets.encoder import CUDA, EncoderInfo, read_info
from moe_router.errors import ModelAssetError

Embeddings = NDArray[np.float32]

MAX_BATCH_TOKENS = 4096
"""Texts times the tokens of the longest: bounds the memory of one pass."""


class Encoder:
    """Encodes texts with a folder made by `moe_router.assets.encoder.ensure_encoder`.

    Blocking and thread-safe. A text's vector does not depend on the others in its batch.
    """

    def __init__(self, folder: Path, *, max_tokens: int = 256, threads: int | None = None) -> None:
        """Loads the model.

        Args:
            folder: holds model.onnx, tokenizer.json and encoder.json.
            max_tokens: longer texts are cut there; what a text is about shows in its beginning.
            threads: of one pass; None for ONNX Runtime's default, the number of cores.

        Raises:
            ModelAssetError: a file is missing or damaged.
        """
        self.info = read_info(folder)
        self.max_tokens = min(max_tokens, self.info.max_tokens)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Threads spin between a pass's operators (without, a pass takes half as long again), but not
        # between passes: there they would burn the cores that an expert on the same machine needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = ort.InferenceSession(
                str(folder / "model.onnx"), options, providers=_providers(self.info)
            )
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both libraries raise bare exceptions of their own
            raise ModelAssetError(f"the encoder in {folder} cannot be loaded: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)

    @property
    def identity(self) -> str:
        """What weights trained on this encoder are bound to."""
        return self.info.identity

    @property
    def hidden(self) -> int:
        """Length of a vector."""
        return self.info.hidden

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Encodes texts.

        Returns:
            (len(texts), hidden) float32 rows of length 1, in the order of the texts.
        """
        result = np.empty((len(texts), self.hidden), np.float32)
        tokens = self.tokenize(texts)
        for batch in _batches([len(ids) for ids in tokens]):
            result[batch] = self.forward([tokens[index] for index in batch])
        return result

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with the prefix and the special tokens, at most `max_tokens`."""
        # Beyond this no tokenizer output survives the cut; it bounds the time on huge texts.
        limit = self.max_tokens * 16
        # A lone surrogate is in no vocabulary, and the tokenizer cannot read it.
        cut = [_head(text, limit).encode("utf-8", "ignore").decode("utf-8") for text in texts]
        prefixed = [self.info.prefix + text for text in cut]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prefixed)]

    def forward(self, tokens: Sequence[Sequence[int]]) -> Embeddings:
        """One pass over token ids, padded to the longest: (len(tokens), hidden) float32."""
        width = max(len(ids) for ids in tokens)
        ids = np.ones((len(tokens), width), np.int64)
        mask = np.zeros((len(tokens), width), np.int64)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = own
            mask[row, : len(own)] = 1
        (embeddings,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(embeddings, np.float32)


def _head(text: str, limit: int) -> str:
    """At most so many characters; a run of white space is one token, so in a longer text it counts as one."""
    return text if len(text) <= limit else " ".join(text.split(maxsplit=limit))[:limit]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Groups texts of like length, so that little is spent on padding."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Sorted by length: the newest is the longest. A batch may pad its shortest by a third.
        fits = batches and (len(batches[-1]) + 1) * lengths[index] <= MAX_BATCH_TOKENS
        if fits and lengths[index] <= 1.34 * lengths[batches[-1][0]] + 4:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _providers(info: EncoderInfo) -> list[str]:
    """A GPU for a float graph; between int8 products it would only copy back and forth."""
    cuda = info.precision == "float32" and CUDA in ort.get_available_providers()
    return [*([CUDA] if cuda else []), "CPUExecutionProvider"]
