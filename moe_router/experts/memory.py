"""How much memory base models may take, and how much one will."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

WEIGHTS = "*.safetensors"


def available_memory() -> int:
    """Bytes free now: on the GPU where there is one, else what this process may still take of the RAM."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free)
    return available_ram()


def reclaim() -> None:
    """Gives back what nothing uses: a model's parts refer to each other, and torch keeps its blocks."""
    gc.collect()
    torch = sys.modules.get("torch")  # where it is not loaded nothing of it is to be given back
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def available_ram(root: Path = Path("/")) -> int:
    """What the kernel can give, its page cache included, within the limits of this process's cgroups (v2)."""
    meminfo = root / "proc" / "meminfo"
    if not meminfo.is_file():  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = int(_fields(meminfo)["MemAvailable:"]) * 1024
    return max(0, min([free, *_left_in_cgroups(root)]))


def _left_in_cgroups(root: Path) -> list[int]:
    """What is left below each limit, of the process's own cgroup and of those around it."""
    mount = root / "sys" / "fs" / "cgroup"
    own = root / "proc" / "self" / "cgroup"
    paths = (
        [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")] if own.is_file() else []
    )
    left = []
    for path in paths:
        folder = mount / path.strip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(mount) and (group / "memory.max").is_file():
                limit = (group / "memory.max").read_text().strip()
                if limit != "max":
                    used = int((group / "memory.current").read_text())
                    # Files that were read count as used, and go when the memory is wanted.
                    used -= int(_fields(group / "memory.stat").get("inactive_file", 0))
                    left.append(int(limit) - used)
    return left


def _fields(file: Path) -> dict[str, str]:
    rows = [line.split() for line in file.read_text().splitlines()]
    return {row[0]: row[1] for row in rows if len(row) > 1}


def weights_bytes(source: Path | str) -> int:
    """Bytes of a model folder's weights; 0 for a name on the hub, whose files nobody has seen yet."""
    return sum(file.stat().st_size for file in Path(source).glob(WEIGHTS))
