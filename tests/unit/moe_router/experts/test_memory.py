from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moe_router.experts.memory import available_ram, weights_bytes

GIB = 2**30


def machine(root: Path, limits: dict[str, tuple[str, int, int]]) -> Path:
    """A machine with 8 GiB to spare, and cgroups with a limit, what is used, and of that what is cache."""
    (root / "proc" / "self").mkdir(parents=True)
    kib = 8 * GIB // 1024
    (root / "proc" / "meminfo").write_text(f"MemFree: 1 kB\nMemAvailable: {kib} kB\nHugePages_Total: 0\n")
    (root / "proc" / "self" / "cgroup").write_text("1:cpu:/old\n0::/outer/inner\n")
    for name, (limit, used, cache) in limits.items():
        folder = root / "sys" / "fs" / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")
    return root


def test_what_is_free_counts_the_page_cache(tmp_path: Path) -> None:
    assert available_ram(machine(tmp_path, {})) == 8 * GIB


def test_the_tightest_cgroup_bounds_it(tmp_path: Path) -> None:
    limits = {
        "outer": (str(4 * GIB), 3 * GIB, 2 * GIB),
        "outer/inner": ("max", 2 * GIB, 0),
        "other": (str(GIB), 0, 0),
    }
    assert available_ram(machine(tmp_path, limits)) == 3 * GIB


def test_a_model_weighs_what_its_tensors_take(tmp_path: Path) -> None:
    halves, bytes_ = torch.ones(3, 5, dtype=torch.bfloat16), torch.ones(7, dtype=torch.uint8)
    save_file({"a": halves, "b": bytes_}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    save_file({"c": halves.double()}, tmp_path / "b.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(10))
    assert weights_bytes(tmp_path) == 15 * 2 + 7 + 15 * 8
    assert weights_bytes(tmp_path, least_itemsize=4) == 15 * 4 + 7 * 4 + 15 * 8
    assert weights_bytes("some/model-of-the-hub") == 0


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 8, struct.pack("<Q", 2) + b"[]"])
def test_a_file_that_holds_no_tensors_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is no safetensors file"):
        weights_bytes(tmp_path)
