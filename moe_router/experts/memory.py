"""How much memory base models may take, and how much one will."""

from __future__ import annotations

import gc
import json
import math
import os
import struct
import sys
from pathlib import Path

WEIGHTS = "*.safetensors"
MOST_HEADER_BYTES = 100 << 20
"""What the format allows."""


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


def weights_bytes(source: Path | str, least_itemsize: int = 1) -> int:
    """Bytes that a model folder's weights take; 0 for a name on the hub, whose files nobody has seen yet.

    Args:
        source: the folder.
        least_itemsize: bytes that a number takes once it is loaded, if it takes fewer in the file.

    Raises:
        ValueError: a file is no safetensors file.
    """
    return sum(_tensor_bytes(file, least_itemsize) for file in Path(source).glob(WEIGHTS))


def _tensor_bytes(file: Path, least_itemsize: int) -> int:
    """By the header (https://huggingface.co/docs/safetensors, "Format"): no tensor is read."""
    try:
        with file.open("rb") as opened:
            [length] = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, MOST_HEADER_BYTES)))
        header.pop("__metadata__", None)
        found = 0
        for tensor in header.values():
            begin, end = tensor["data_offsets"]
            numbers = math.prod(tensor["shape"])
            found += max(end - begin, numbers * least_itemsize)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no safetensors file: {type(error).__name__}") from error
    return found
