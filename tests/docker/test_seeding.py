"""Volumes: filled on the first start, renewed by a newer image, and the operator's files kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import docker, run

VOLUME = "mole-test-seeding"
NEWER = "mole:newer"
ADAPTERS = "/app/moe_router/experts/llms/adapters"
SHIPPED = "finance/sentiment_analysis/template.json"
OTHER = "general/topic_classification/template.json"


@pytest.fixture
def volume() -> Iterator[str]:
    docker("volume", "rm", "-f", VOLUME, ok=False)
    yield VOLUME
    docker("volume", "rm", "-f", VOLUME)


@pytest.fixture(scope="module")
def newer(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that ships another two templates."""
    folder: Path = tmp_path_factory.mktemp("newer")
    changes = " && ".join(f"echo newer >/opt/mole/shipped/adapter_weights/{f}" for f in (SHIPPED, OTHER))
    (folder / "Dockerfile").write_text(f"FROM {image}\nUSER root\nRUN {changes}\nUSER 10001:10001\n")
    run("docker", "build", "-q", "-t", NEWER, str(folder), env={"DOCKER_BUILDKIT": "0"})
    yield NEWER
    docker("rmi", "-f", NEWER)


def start(image: str, volume: str, *options: str) -> str:
    """The entrypoint of a worker, without the worker: its words say that it is one."""
    command = ("sh", "-c", "id -u", "uvicorn", "expert_worker.main:app")
    return docker("run", "--rm", "-v", f"{volume}:{ADAPTERS}", *options, image, *command)


def inside(image: str, volume: str, script: str, user: str = "10001") -> str:
    options = ("--rm", "-u", user, "-v", f"{volume}:/v", "-w", "/v", "--entrypoint", "sh")
    return docker("run", *options, image, "-ec", script)


def test_a_newer_image_renews_what_it_shipped_and_nothing_else(image: str, newer: str, volume: str):
    assert start(image, volume).split()[-1] == "10001"
    shipped = inside(image, volume, f"cat {OTHER}")
    inside(image, volume, f"echo mine >{SHIPPED}; mkdir -p mine/lora; echo mine >mine/lora/weights")
    said = start(newer, volume)
    assert inside(newer, volume, f"cat {SHIPPED} mine/lora/weights {OTHER}").split() == [
        "mine",
        "mine",
        "newer",
    ]
    assert SHIPPED in said
    assert "1 renewed" in said
    start(image, volume)  # back again
    assert inside(image, volume, f"cat {OTHER}") == shipped
    assert inside(image, volume, f"cat {SHIPPED}").strip() == "mine"


def test_a_folder_that_cannot_be_written_is_told(image: str, volume: str):
    inside(image, volume, "chown 0:0 /v && chmod 755 /v && touch /v/theirs", user="0")
    said = start(image, volume)
    assert "cannot be filled by user 10001" in said
    assert said.split()[-1] == "10001"  # the service starts all the same


def test_a_folder_of_the_hosts_is_seeded_where_it_may_be(image: str, tmp_path: Path):
    tmp_path.chmod(0o777)
    start(image, str(tmp_path))
    assert (tmp_path / SHIPPED).is_file()
    inside(image, str(tmp_path), "rm -rf ./* ./.mole*")
