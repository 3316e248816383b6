"""Matrix products on a CPU by oneDNN rather than MKL, where that loses nothing.

torch gives float32 products to MKL, which leaves AVX-512 unused on processors that are not Intel's; oneDNN
takes half the time there. torch hands them over only with the leave to round the factors to bfloat16. oneDNN
makes no use of it without AMX, but would with it, so the numbers are looked at before it may stay.

oneDNN compiles code for each shape and keeps it, about half a megabyte a product, so passes come in a few
dozen lengths and not in a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

TOLERANCE = 1e-4
"""Greatest error of a product of length 640 of unit variance: 5e-6 in float32, 5e-3 in bfloat16."""
MKL, ONEDNN = "highest", "medium"
"""What torch calls the leave to round, by the library that then multiplies float32."""
_in_force = MKL


def prefer_onednn() -> bool:
    """Lets oneDNN compute the process's float32 products from now on; whether it may."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(64, 640, generator=generator), torch.randn(640, 640, generator=generator)
    right /= 640**0.5
    torch.set_float32_matmul_precision(ONEDNN)
    with torch.inference_mode():
        error = (left @ right - left.double() @ right.double()).abs().max().item()
    _take(ONEDNN if error <= TOLERANCE else MKL)
    return error <= TOLERANCE


@contextmanager
def by_mkl() -> Iterator[None]:
    """Within, products are MKL's: of many small ones in ever other shapes, which oneDNN would compile anew.

    Such a product took four times as long there, and 1,500 of them a gigabyte.
    """
    torch.set_float32_matmul_precision(MKL)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(_in_force)


def _take(library: str) -> None:
    global _in_force
    _in_force = library
    torch.set_float32_matmul_precision(library)


def computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, float32 is five times as fast.

    An older torch does not tell: then float32 is the safe choice.
    """
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(unit) for unit in ("amx_bf16", "avx512_bf16", "bf16"))


def rounded_rows(count: int) -> int:
    """The least length of a pass that is not shorter: 1 to 8, then multiples of 16, 32 and 64."""
    if count <= 8:
        return count
    step = 16 if count <= 128 else 32 if count <= 512 else 64
    return -(-count // step) * step
