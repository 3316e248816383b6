"""Matrix products on a CPU by oneDNN rather than MKL, where that loses nothing.

torch gives float32 products to MKL, which leaves AVX-512 unused on processors that are not Intel's; oneDNN
takes half the time there. torch hands them over only with the leave to round the factors to bfloat16. oneDNN
makes no use of it without AMX, but would with it, so the numbers are looked at before it may stay.

oneDNN compiles code for each shape and keeps it, about half a megabyte a product, so passes come in a few
dozen lengths and not in a thousand. The leave is the whole process's, whichever model's pass it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch
from torch.nn.functional import linear

TOLERANCE = 1e-4
"""Greatest error of a product of length 640 of unit variance: 5e-6 in float32, 5e-3 in bfloat16."""
MKL, ONEDNN = "highest", "medium"
"""What torch calls the leave to round, by the library that then multiplies float32."""
ROUNDS = 8
"""In which bfloat16 and float32 are timed, some 40 ms in all."""
GAIN = 0.8
"""Share of float32's time from which bfloat16 is taken, so that workers on like machines decide alike."""


class _Leave:
    """Which library multiplies, now and after the blocks that ask for MKL."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._after = MKL
        self._exact: bool | None = None

    def decide(self) -> bool:
        """Gives oneDNN the leave where it is exact; once, as passes that run would disturb a second look."""
        with self._lock:
            if self._exact is None:
                now = torch.get_float32_matmul_precision()
                try:
                    self._exact = _onednn_is_exact()
                    self._after = ONEDNN if self._exact else MKL
                    now = now if self._blocks else self._after
                finally:
                    torch.set_float32_matmul_precision(now)
            return self._exact

    def enter(self) -> None:
        with self._lock:
            if not self._blocks:
                self._after = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision(MKL)
            self._blocks += 1

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                torch.set_float32_matmul_precision(self._after)


_leave = _Leave()


def prefer_onednn() -> bool:
    """Lets oneDNN compute the process's float32 products from now on; whether it may, decided once."""
    return _leave.decide()


@contextmanager
def by_mkl() -> Iterator[None]:
    """Within, products are MKL's: of many small ones in ever other shapes, which oneDNN would compile anew.

    Such a product took four times as long there, and 1,500 of them a gigabyte. What other threads multiply
    meanwhile is MKL's, too.
    """
    _leave.enter()
    try:
        yield
    finally:
        _leave.leave()


def _onednn_is_exact() -> bool:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(64, 640, generator=generator), torch.randn(640, 640, generator=generator)
    right /= 640**0.5
    torch.set_float32_matmul_precision(ONEDNN)
    with torch.inference_mode():
        error = (left @ right - left.double() @ right.double()).abs().max().item()
    return error <= TOLERANCE


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, float32 is five times as fast.

    An older torch does not tell: then float32 is the safe choice.
    """
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(unit) for unit in ("amx_bf16", "avx512_bf16", "bf16"))


def computes_bfloat16() -> bool:
    """Whether products of a batch's length are clearly faster here in bfloat16 than in float32; timed once.

    Not every processor that multiplies bfloat16 gains by it: with AVX-512 BF16 an AMD EPYC takes half the
    time, an Intel Xeon without AMX twice the time.
    """
    return multiplies_bfloat16() and _bfloat16_is_faster()


@cache
def _bfloat16_is_faster() -> bool:
    """By the best of several rounds each, in turns: what else runs can only make one slower."""
    generator = torch.Generator().manual_seed(0)
    given, weights = (torch.randn(rows, 1024, generator=generator) for rows in (256, 1024))
    rounded = weights.bfloat16()
    ways = (
        lambda: linear(given.bfloat16(), rounded).float(),
        lambda: linear(given, weights),
    )
    with torch.inference_mode():
        rounds = [[_seconds(way) for way in ways] for _ in range(ROUNDS)]
    half, full = map(min, zip(*rounds, strict=True))
    return bool(half < GAIN * full)


def _seconds(multiply: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    multiply()
    return time.perf_counter() - start


def rounded_rows(count: int) -> int:
    """The least length of a pass that is not shorter: 8, then multiples of 16, 32 and 64.

    Smaller products are not oneDNN's, but those of other functions, which sum in another order.
    """
    if count <= 8:
        return 8
    step = 16 if count <= 128 else 32 if count <= 512 else 64
    return -(-count // step) * step
