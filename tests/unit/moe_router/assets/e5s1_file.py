"""Writes files of the packed format that `moe_router.assets.e5s1` reads."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, TYPES = 32, 2, 4, 64, 300, 20, 1
EPSILON = 1e-5
Tensors = dict[str, tuple[int, NDArray[np.float32]]]


def tensors(seed: int = 0) -> Tensors:
    """Kind (0 float32, 1 Q4_0) and values by the file's names; Q4_0 values are exact multiples of scales."""
    rng = np.random.default_rng(seed)

    def q4(*shape: int) -> tuple[int, NDArray[np.float32]]:
        blocks = int(np.prod(shape)) // 32
        scales = rng.choice(np.array([0.015625, 0.03125, 0.0625], np.float32), (blocks, 1))
        values = rng.integers(-8, 8, (blocks, 32)).astype(np.float32) * scales
        return 1, values.reshape(shape)

    def f32(*shape: int) -> tuple[int, NDArray[np.float32]]:
        return 0, rng.normal(0, 0.3, shape).astype(np.float32)

    found: Tensors = {
        "emb.word": q4(VOCABULARY, HIDDEN), "emb.pos": f32(POSITIONS, HIDDEN),
        "emb.type": f32(TYPES, HIDDEN), "emb.ln.w": f32(HIDDEN), "emb.ln.b": f32(HIDDEN),
    }  # fmt: skip
    for layer in range(LAYERS):
        for part, shape in {
            "q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN), "ao": (HIDDEN, HIDDEN),
            "fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER),
        }.items():  # fmt: skip
            found[f"l{layer}.{part}.w"] = q4(*shape)
            found[f"l{layer}.{part}.b"] = f32(shape[0])
        for part in ("aln", "oln"):
            found[f"l{layer}.{part}.w"], found[f"l{layer}.{part}.b"] = f32(HIDDEN), f32(HIDDEN)
    return found


def pack(kind: int, values: NDArray[np.float32]) -> bytes:
    if kind == 0:
        return values.astype("<f4").tobytes()
    packed = b""
    for block in values.reshape(-1, 32):
        steps = np.abs(block[block != 0])
        # The greatest of the three scales that all values are whole multiples of, within -8 to 7.
        scale = next(
            s
            for s in (0.0625, 0.03125, 0.015625)
            if not len(steps) or (((block / s) % 1 == 0) & (block / s >= -8) & (block / s < 8)).all()
        )
        nibbles = (block / scale + 8).astype(np.uint8)
        packed += np.float16(scale).tobytes() + (nibbles[:16] | nibbles[16:] << 4).tobytes()
    return packed


def content(own: Tensors | None = None, *, block: int = 32, magic: bytes = b"E5S1") -> bytes:
    """A whole file."""
    own = tensors() if own is None else own
    head = magic + struct.pack("<I7i", 1, HIDDEN, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, TYPES)
    head += struct.pack("<fi", EPSILON, block)
    pieces, blob = 3, b"abcdef"
    head += struct.pack("<i16xQ", pieces, len(blob)) + bytes((pieces + 1) * 4 + pieces * 4) + blob
    head += struct.pack("<II", 0, 5) + b"rules"
    entries = [(name.encode(), kind, values, pack(kind, values)) for name, (kind, values) in own.items()]
    at = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in entries)
    directory, data = struct.pack("<i", len(entries)), b""
    for name, kind, values, packed in entries:
        directory += struct.pack("<H", len(name)) + name
        directory += struct.pack("<BIQQ", kind, values.size, at + len(data), len(packed))
        data += packed
    return head + directory + data


@cache
def usual() -> bytes:
    """The file of `tensors()`."""
    return content()


def write(path: Path, own: Tensors | None = None) -> Path:
    path.write_bytes(usual() if own is None else content(own))
    return path
