"""The disk of the database is really full: what needs it is a 503, and goes on when there is room again."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.services.test_services import eventually
from tests.stubs import files
from tests.stubs.processes import Process, Stage

pytestmark = pytest.mark.slow
CLASSIFY, FEEDBACK, JOBS = "/api/v1/classify", "/api/v1/feedback", "/api/v1/jobs"
ITEM = {"text": "positive", "options": {"task": files.SENTIMENT, "language": "en", "via": "expert"}}
ITEMS = 300
ROOM = 2**16
"""Bytes; a part of the job fits in."""
REFUSALS = 3
MOST_TRIES = 50


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one, with room for SQLite's log of some 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here, which takes root's rights: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Desk:
    """What a caller does with the coordinator whose database is on the disk."""

    def __init__(self, coordinator: Process, disk: Path) -> None:
        self.http = httpx.Client(base_url=coordinator.url, timeout=60, trust_env=False)
        self.filler = disk / "filler"

    def classify(self, request_id: str) -> None:
        answer = self.http.post(CLASSIFY, json=ITEM, headers={"X-Request-ID": request_id})
        assert answer.status_code == 200, answer.text

    def judge(self, request_id: str, score: float) -> httpx.Response:
        return self.http.post(FEEDBACK, json={"request_id": request_id, "score": score})

    def hand_in(self) -> httpx.Response:
        lines = (json.dumps(ITEM) + "\n") * ITEMS
        return self.http.post(JOBS, content=lines, headers={"Content-Type": "application/x-ndjson"})

    def states(self) -> dict[str, str]:
        """Of all jobs; none where the answer is a 503."""
        return {job["job_id"]: job["state"] for job in self.http.get(JOBS).json().get("jobs", [])}

    def fill(self, room: int) -> None:
        """Leaves no more than so many bytes."""
        with self.filler.open("ab", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096):
                    pass
            except OSError:
                filler.truncate(filler.tell() - room)

    def refused(self, post: Callable[[], httpx.Response], room: int = 0) -> list[httpx.Response]:
        """Posts until it was refused some times in a row; what was accepted before.

        SQLite may find room in its own files, and frees some when it opens them anew.
        """
        accepted, refusals = [], 0
        for _ in range(MOST_TRIES):
            self.fill(room)
            answer = post()
            if answer.status_code == 202:
                accepted.append(answer)
                refusals = 0
                continue
            check_refusal(answer)
            refusals += 1
            if refusals == REFUSALS:
                return accepted
        raise AssertionError(f"the disk is full, and {len(accepted)} were accepted")


def check_refusal(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/storage-unavailable"
    assert int(answer.headers["retry-after"]) >= 1


@pytest.fixture
def desk(disk: Path, stage: Stage) -> Iterator[Desk]:
    worker = stage.worker(STUB_DEVICE_MS="20")
    files.write(stage.folder, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")
    coordinator = stage.coordinator(MOLE_STATE_DIR=str(disk))
    coordinator.wait_for("/api/v1/health/ready")
    coordinator.wait_healthy()
    found = Desk(coordinator, disk)
    yield found
    found.http.close()


def test_it_is_told_leaves_nothing_half_written_and_is_over_without_a_restart(desk: Desk, disk: Path) -> None:
    desk.classify("before")
    assert desk.judge("before", 0).status_code == 202
    jobs = {desk.hand_in().json()["job_id"]}  # it is worked on when the disk becomes full
    scores = itertools.count(1)
    judged = desk.refused(lambda: desk.judge("before", next(scores) / 1000))
    jobs |= {answer.json()["job_id"] for answer in desk.refused(desk.hand_in, ROOM)}
    desk.classify("during")

    desk.filler.unlink()
    eventually(lambda: desk.judge("during", 1).status_code == 202)
    stored = rows(disk, "SELECT request_id, score FROM feedback ORDER BY id")
    assert stored == [("before", len(judged) / 1000), ("during", 1)]
    jobs.add(desk.hand_in().json()["job_id"])
    eventually(lambda: desk.states() == dict.fromkeys(jobs, "succeeded"), 120)
    # What the refused ones left is forgotten as soon as it can be.
    counts = "SELECT state, count(*) FROM jobs GROUP BY state"
    eventually(lambda: rows(disk, counts) == [("succeeded", len(jobs))])
    assert rows(disk, "SELECT count(*), count(answer_json) FROM job_items") == [(len(jobs) * ITEMS,) * 2]
    assert rows(disk, "PRAGMA integrity_check") == [("ok",)]


def rows(disk: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(disk / "coordinator.sqlite3")) as database:
        return database.execute(query).fetchall()
