"""Docker for tests: commands, Compose projects, a clean checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
LOCAL_BASE = "mole-test-base:bookworm"
"""The base image where the Engine has it: made on the machine, where no image registry is reached."""
PLAIN_BASE = "python:3.11-slim-bookworm"
"""The base image elsewhere: like CUDA's, without its 2 GB."""
IMAGE = "mole:test"
SLIM_IMAGE = "mole-coordinator:test"
COORDINATOR = "http://127.0.0.1:8000"
API = "/api/v1"
PATIENCE_S = 600.0
"""A model that is loaded on busy cores takes long; nothing here waits longer than it must."""


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None, ok: bool = True) -> str:
    """What the command printed; where it fails, the error holds it."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert not ok or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
    return done.stdout


def docker(*arguments: str, ok: bool = True) -> str:
    return run("docker", *arguments, ok=ok)


def composes() -> list[list[str]]:
    """Every Compose at hand: `docker-compose`, which may be v1, then the plugin `docker compose`."""
    found = [["docker-compose"]] if shutil.which("docker-compose") else []
    if shutil.which("docker") and succeeds("docker", "compose", "version"):
        found.append(["docker", "compose"])
    return found


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def inspect(name: str) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", name))
    assert isinstance(found, dict)
    return found


def build(checkout: Path, base: str, tag: str, *more: str, buildkit: bool = False) -> str:
    """Builds the image, by default with the classic builder, whose log tells of each layer; returns it."""
    command = ["docker", "build", "--build-arg", f"BASE_IMAGE={base}", "--build-arg", "MOLE_EXTRAS=demo"]
    command += ["-f", "docker/Dockerfile", "-t", tag, *more, "."]
    return run(*command, cwd=checkout, env={"DOCKER_BUILDKIT": str(int(buildkit))})


def copy_checkout(target: Path) -> Path:
    """The files of a fresh clone, as they are now."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


class Stack:
    """One Compose project of a checkout."""

    def __init__(
        self, checkout: Path, project: str, files: list[str], compose: list[str], base: str, **env: str
    ) -> None:
        self.checkout = checkout
        self.project = project
        self.first_start: dict[str, dict[str, Any]] = {}
        """The containers as `docker inspect` told them right after the first start."""
        self._command = [*compose, "-p", project]
        for file in files:
            self._command += ["-f", f"docker/{file}"]
        self._env = {"MOLE_IMAGE": IMAGE, "BASE_IMAGE": base, "DOCKER_BUILDKIT": "0", **env}

    def __call__(self, *arguments: str, ok: bool = True) -> str:
        return run(*self._command, *arguments, cwd=self.checkout, env=self._env, ok=ok)

    def wipe(self) -> None:
        """Containers, networks and volumes; those of an earlier run that was cut off as well."""
        self("down", "-v", "--remove-orphans", "-t", "5", ok=False)


def wait_for(what: str, look: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first thing found; connections that fail and answers such as 503 are waited out meanwhile."""
    end = time.monotonic() + patience_s
    last: object = None
    while time.monotonic() < end:
        try:
            last = look()
        except httpx.HTTPError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.25)
    raise AssertionError(f"never saw {what}; last: {last!r}")
