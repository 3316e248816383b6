"""The tutorial and the how-to pages run: every command and Python block, as a reader would type them."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.demo.test_readme import DEFAULT_URL, ROOT, Block, blocks, commands, run
from tests.stubs.processes import PATIENCE_S, Process, free_port

DOCS = ROOT / "docs"
ENDLESS = ("demo", "serve")
WRITTEN = 2
"""Blocks of add-task.md that write the files, before the service starts."""
MONOLITHIC_URL = "http://127.0.0.1:8002"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place like a checkout after `make setup`, so that what a page writes is nobody's else."""
    made = tmp_path_factory.mktemp("reader")
    command = made / ".venv" / "bin" / "mole"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mole.cli.main "$@"\n')
    command.chmod(0o755)
    (made / "config").symlink_to(ROOT / "config")
    return made


def follow(page: str, folder: Path, url: str, more: dict[str, str] | None = None, *, after: int = 0) -> int:
    """Runs a page, all of it or what comes after so many blocks; how many blocks that were."""
    followed = 0
    for block in blocks(DOCS / page)[after:]:
        if block.kind in ("sh", "python"):
            followed += 1
            follow_block(block, folder, {DEFAULT_URL: url, **(more or {})})
    return followed


def follow_block(block: Block, folder: Path, urls: dict[str, str]) -> None:
    def here(text: str) -> str:
        for told, real in urls.items():
            text = text.replace(told, real)
        return text

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MOLE_URL": urls[DEFAULT_URL]}
    if block.kind == "python":
        steps = [[sys.executable, "-c", here(block.text)]]
    else:
        steps = [["bash", "-c", here(command)] for command in commands(block) if not endless(command)]
    for step in steps:
        done = subprocess.run(
            step, cwd=folder, capture_output=True, text=True, env=environment, timeout=PATIENCE_S * 6
        )
        assert done.returncode == 0, f"line {block.line}: {step[-1]}\n{done.stderr}"
        # A page's programs show answers; where one should abstain, the page shows it by a command.
        told = block.kind != "python" or "frame" in block.text or "None" not in done.stdout
        assert told, f"line {block.line}:\n{done.stdout}"


def endless(command: str) -> bool:
    """Whether it runs until it is stopped, or needs a fresh checkout; other tests run it."""
    words = shlex.split(command)
    if words[0] == "make":
        run(["make", "--dry-run", *words[1:]])
        return True
    return words[0] == ".venv/bin/mole" and words[1] in ENDLESS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tutorial(demo, folder: Path):
    assert follow("tutorial.md", folder, demo.url) >= 8
    with (folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:2] == ["text", "mole_result"]
    assert [(row["mole_task"], row["mole_abstained"]) for row in rows] == [("retail/review_rating", "")] * 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_texts_openai_clients_and_observing(demo, folder: Path):
    for page in ("how-to/openai-clients.md", "how-to/observe.md"):
        assert follow(page, folder, demo.url) >= 1
    pages = ("how-to/many-texts.md", "jobs.md", "reference/sdk.md")
    python = [block for page in pages for block in blocks(DOCS / page) if block.kind == "python"]
    assert len(python) == 4
    for block in python:
        follow_block(block, folder, {DEFAULT_URL: demo.url})


@pytest.fixture(scope="module")
def own_service(folder: Path) -> Iterator[Process]:
    """What the page starts in another terminal, once it has told what to write."""
    page = blocks(DOCS / "how-to/add-task.md")
    for block in page[:WRITTEN]:
        follow_block(block, folder, {DEFAULT_URL: DEFAULT_URL})
    (command,) = [c for b in page if b.kind == "sh" for c in commands(b) if " serve monolithic " in c]
    given = shlex.split(command)[1:]
    port = free_port()
    given[given.index("--port") + 1] = str(port)
    registry = given.index("--registry") + 1
    given[registry] = str(folder / given[registry])
    environment = {"MOLE_STATE_DIR": str(folder / "state")}
    process = Process(["mole.cli.main", *given], port, folder / "own.log", environment)
    try:
        process.wait_for("/api/v1/health/ready")
        yield process
    finally:
        process.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_task_is_found_and_served_by_the_page_alone(own_service: Process, folder: Path):
    urls = {MONOLITHIC_URL: own_service.url}
    assert follow("how-to/add-task.md", folder, DEFAULT_URL, urls, after=WRITTEN) >= 3
    asked = {
        "text": "My knee has been swollen since Sunday.",
        "description": "To which department should we send this patient?",
    }
    told = httpx.post(own_service.url + "/api/v1/classify", json=asked, timeout=120, trust_env=False).json()
    assert told["task"] == "clinic/department", told
    assert told["result"] in ("cardiology", "dermatology", "orthopaedics", "paediatrics")
    declared = json.loads((folder / "my" / "experts_registry.json").read_text())["tasks"]["clinic/department"]
    for question in declared["examples"]:
        asked = {"text": "My knee has been swollen since Sunday.", "description": question}
        told = httpx.post(own_service.url + "/api/v1/route", json=asked, timeout=120, trust_env=False).json()
        assert told["task"] == "clinic/department", told


def test_every_page_is_in_the_navigation_and_every_schema_is_named():
    told = (ROOT / "mkdocs.yml").read_text()
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    named = set(re.findall(r"[\w/-]+\.md", told))
    assert named <= pages
    assert {page for page in pages if page.startswith(("how-to/", "explanation/", "reference/"))} <= named
