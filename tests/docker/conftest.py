"""An Engine, one image and one running stack for all tests of this folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import (
    IMAGE,
    LOCAL_BASE,
    PLAIN_BASE,
    Stack,
    build,
    composes,
    copy_checkout,
    docker,
    inspect,
    succeeds,
)

PROJECT = "mole-test"
NAMES = ("mole-coordinator", "mole-expert-worker-0")
DISTRIBUTED = ["docker-compose-distributed.yml", "docker-compose-cpu.yml"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is in this folder needs Docker, and the first test time for the one build."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def engine() -> str:
    """An Engine runs, and no stack of the user's own holds the names that the Compose files fix.

    Returns the image to build from.
    """
    if shutil.which("docker") is None or not succeeds("docker", "info"):
        pytest.skip("no Docker Engine runs here (`docker info` fails)")
    own = 'index .Config.Labels "com.docker.compose.project"'
    for name in NAMES:
        project = docker("inspect", "-f", "{{" + own + "}}", name, ok=False).strip()
        if "No such object" not in project and not project.startswith(PROJECT):
            pytest.skip(f"the container {name} of the project {project!r} is in use")
    return LOCAL_BASE if succeeds("docker", "image", "inspect", LOCAL_BASE) else PLAIN_BASE


@pytest.fixture(scope="session")
def compose() -> list[str]:
    """The oldest Compose at hand: where there are both, docker-compose v1."""
    found = composes()
    if not found:
        pytest.skip("there is neither docker-compose nor `docker compose`")
    return found[0]


@pytest.fixture(scope="session")
def newest_compose(compose: list[str]) -> list[str]:
    """Where there are both, Compose v2."""
    return composes()[-1]


@pytest.fixture(scope="session")
def checkout(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout; its config is mounted, and edited by the tests."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def image(checkout: Path, engine: str) -> str:
    """The image, built once from the clean checkout; it stays, so that the next run finds its layers."""
    build(checkout, engine, IMAGE)
    return IMAGE


@pytest.fixture(scope="package")
def stack(checkout: Path, image: str, engine: str, compose: list[str]) -> Iterator[Stack]:
    """The distributed stack without a GPU, brought up from nothing; gone after this folder's last test."""
    found = Stack(checkout, PROJECT, DISTRIBUTED, compose, engine)
    found.wipe()
    try:
        found("up", "--build", "-d")
        found.first_start = {name: inspect(name) for name in NAMES}
        yield found
    finally:
        found.wipe()


@pytest.fixture
def mapping(checkout: Path) -> Iterator[Path]:
    """The mapping of the stack on the host; restored in the end."""
    path = checkout / "config" / "demo" / "expert_machine_mapping.docker.json"
    before = path.read_text()
    yield path
    replace(path, json.loads(before))


def replace(path: Path, content: object) -> None:
    """Writes as many editors do: another file, renamed over the first."""
    other = path.with_name(path.name + "~")
    other.write_text(json.dumps(content))
    other.replace(path)
