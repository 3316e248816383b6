"""The cache folder, and building something in it exactly once."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str, float], None]
"""Takes what is being done and the fraction that is done, from 0 to 1."""

DEFAULT_CACHE = Path("~/.cache/mole")


def no_progress(_message: str, _fraction: float) -> None:
    """Reports to nobody."""


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Makes the folder `target` by `build` unless it is there; several processes may ask at once.

    `build` fills a temporary folder beside the target, which then takes the target's name in one
    step: a crash in the middle leaves nothing that looks finished.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(target.name + ".lock")):
        if target.is_dir():  # another process was faster
            return target
        scratch = target.with_name(f".{target.name}.partial")
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir()
        try:
            build(scratch)
            os.replace(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel when the process ends, however it does
        yield
