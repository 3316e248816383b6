from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moe_router.assets.cache import build_once

WORKER = """
import sys, time
from pathlib import Path
from moe_router.assets.cache import build_once
folder, me, all_of_us = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def build(scratch):
    # Nobody is done before everybody has begun.
    while len(list(folder.glob("begun-*"))) < all_of_us:
        time.sleep(0.005)
    (folder / f"built-{me}").touch()
    (scratch / "file").write_text(me)

(folder / f"begun-{me}").touch()
print((build_once(folder / "cache" / "thing", build) / "file").read_text())
"""
KILLED = """
import os, sys
from pathlib import Path
from moe_router.assets.cache import build_once

def build(scratch):
    (scratch / "half").write_text("done")
    os._exit(9)

build_once(Path(sys.argv[1]), build)
"""


def never(_scratch: Path) -> None:
    raise AssertionError("built again")


def test_it_builds_where_nothing_is_and_only_then(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "thing"
    assert build_once(target, lambda scratch: (scratch / "file").touch()) == target
    assert [path.name for path in target.iterdir()] == ["file"]
    assert build_once(target, never) == target


def test_a_failing_build_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    target = tmp_path / "thing"

    def fail(scratch: Path) -> None:
        (scratch / "half").touch()
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        build_once(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]
    build_once(target, lambda scratch: (scratch / "file").touch())
    assert [path.name for path in target.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert killed.returncode == 9
    assert not target.exists()
    build_once(target, lambda scratch: (scratch / "file").touch())
    assert [path.name for path in target.iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing", "thing.lock"]


def test_of_several_processes_one_builds(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), name, str(len(names))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    said = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert len(set(said)) == 1


def test_of_several_threads_one_builds(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    built: list[str] = []

    def ask() -> None:
        together.wait()
        build_once(tmp_path / "thing", lambda _: built.append("once"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == ["once"]
