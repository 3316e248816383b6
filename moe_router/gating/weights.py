"""Weight files: safetensors with a JSON description beside them, bound to one encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from moe_router.errors import ModelAssetError

Floats = NDArray[np.float32]


class OtherEncoderError(ModelAssetError):
    """Weights were made for the vectors of another encoder."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Arrays by name, and what the JSON file says of them."""

    arrays: Mapping[str, Floats]
    meta: Mapping[str, Any]


def save(folder: Path, name: str, weights: Weights) -> None:
    """Writes `name`.safetensors as float16 and `name`.json into the folder; old ones stay until both are."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {key: np.ascontiguousarray(value, np.float16) for key, value in weights.arrays.items()}
    text = json.dumps(dict(weights.meta), indent=2, ensure_ascii=False)
    with TemporaryDirectory(prefix=".", dir=folder) as scratch:
        written = Path(scratch) / f"{name}.safetensors", Path(scratch) / f"{name}.json"
        save_file(arrays, written[0])
        written[0].chmod(0o644)  # safetensors makes it private
        written[1].write_text(text + "\n", encoding="utf-8")
        for path in written:
            path.replace(folder / path.name)


def load(folder: Path, name: str, *, encoder: str, hidden: int) -> Weights:
    """Reads both files and checks that they were made for this encoder.

    Args:
        folder: where they lie.
        name: without a suffix.
        encoder: the identity of the encoder in use.
        hidden: the length of its vectors.

    Raises:
        ModelAssetError: a file is missing or damaged.
        OtherEncoderError: they were made for another encoder or other dimensions.
    """
    path = folder / f"{name}.safetensors"
    try:
        meta = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        arrays = {key: value.astype(np.float32) for key, value in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelAssetError(f"the weights {path} cannot be read: {error}") from error
    if odd := sorted(key for key, value in arrays.items() if not np.isfinite(value).all()):
        raise ModelAssetError(f"the weights {path} are damaged: {odd[0]!r} holds what is no number")
    if not isinstance(meta, dict):
        raise ModelAssetError(f"the description of {path} is no JSON object")
    if meta.get("encoder") != encoder:
        raise OtherEncoderError(
            f"{path} was made for the encoder {meta.get('encoder')!r}, but {encoder!r} is in use: "
            "make new ones with `mole train gating`"
        )
    if meta.get("hidden") != hidden:
        raise OtherEncoderError(
            f"the weights {path} expect vectors of {meta.get('hidden')}, the encoder makes {hidden}"
        )
    return Weights(arrays, meta)
