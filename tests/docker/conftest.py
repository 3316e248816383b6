"""An Engine, one image and one running stack for all tests of this folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import (
    ENGINE_TOOL,
    IMAGE,
    PLAIN_BASE,
    TEST_BASE,
    Stack,
    build,
    compose_command,
    copy_checkout,
    docker,
    inspect,
)  # fmt: skip

PROJECT = "mole-test"
NAMES = ("mole-coordinator", "mole-expert-worker-0")
DISTRIBUTED = ["docker-compose-distributed.yml", "docker-compose-cpu.yml"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is in this folder needs Docker, and time for the one build."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def base_image() -> str:
    """An Engine runs; the image to build from."""
    if ENGINE_TOOL.is_file():
        made = subprocess.run([str(ENGINE_TOOL)], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        return TEST_BASE
    try:
        found = subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        found = False
    if not found:
        pytest.skip("there is neither a Docker Engine nor the tool that starts one")
    return PLAIN_BASE


@pytest.fixture(scope="session")
def engine(base_image: str) -> str:
    """As base_image; skips where a stack of the user's own holds the names that the Compose files fix."""
    if compose_command() is None:
        pytest.skip("there is no docker-compose, neither v1 nor v2")
    own = 'index .Config.Labels "com.docker.compose.project"'
    for name in NAMES:
        project = docker("inspect", "-f", "{{" + own + "}}", name, ok=False).strip()
        if "No such object" not in project and project not in (PROJECT, ""):
            pytest.skip(f"the container {name} of the project {project!r} is in use")
    return base_image


@pytest.fixture(scope="session")
def checkout(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout; its config is mounted, and edited by the tests."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def image(checkout: Path, engine: str) -> str:
    """The image, built once from the clean checkout; it stays, so that the next run finds its layers."""
    build(checkout, engine, IMAGE)
    return IMAGE


@pytest.fixture(scope="session")
def stack(checkout: Path, image: str, engine: str) -> Iterator[Stack]:
    """The distributed stack without a GPU, brought up from nothing."""
    found = Stack(checkout, PROJECT, DISTRIBUTED, engine)
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
