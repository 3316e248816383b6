"""What every benchmark shares: the machine, medians with their spread, and where results go."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

UNITS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
"""Of a processor that matter for products, by the flag of /proc/cpuinfo."""
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "onnxruntime", "peft", "numpy", "fastapi", "aiohttp", "httpx")


def environment() -> dict[str, Any]:
    """The machine, the versions and the command line."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "command": " ".join(["python", *map(os.path.relpath, sys.argv[:1]), *sys.argv[1:]]),
    }


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    ms = [s * 1e3 for s in seconds]
    low, middle, high = statistics.quantiles(ms, n=4)
    return {"median_ms": round(middle, 3), "q1_ms": round(low, 3), "q3_ms": round(high, 3), "n": len(ms)}


def write(name: str, result: dict[str, Any], table: str) -> None:
    """Prints the table and writes `name`.json and `name`.md into the results folder."""
    RESULTS.mkdir(exist_ok=True)
    full = {"environment": environment()} | result
    (RESULTS / f"{name}.json").write_text(
        json.dumps(full, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    env = full["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in env["versions"].items())
    header = (
        f"`{env['command']}` on {env['processor']}, {env['cores']} cores, Python {env['python']}; {versions}."
    )
    (RESULTS / f"{name}.md").write_text(f"# {name}\n\n{header}\n\n{table}\n", encoding="utf-8")
    print(table)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    units = [name for flag, name in UNITS.items() if flag in flags]
    name = told.get("model name") or platform.processor()
    return f"{name} ({', '.join(units)})" if units else name
