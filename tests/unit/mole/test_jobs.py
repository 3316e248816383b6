"""Jobs by the client and by the command, against a real socket."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from moe_router.contracts import JobAnswer
from mole import AsyncMole, ItemResult, Mole, MoleAPIError, MoleConnectionError
from mole.cli import jobs_command
from mole.cli.console import CommandError
from mole.jobs import Lines, path_of, to_chunks, to_result
from tests.unit.mole.test_command import mole

JOB: dict[str, Any] = {
    "job_id": "j-1",
    "state": "running",
    "total": 4,
    "done": 1,
    "failed": 1,
    "created_at": "2026-01-31T12:00:00.000+00:00",
    "eta_seconds": 2.5,
}
DONE = JOB | {
    "state": "succeeded",
    "done": 3,
    "finished_at": "2026-01-31T12:00:09.000+00:00",
    "eta_seconds": None,
}
LINES = "application/x-ndjson"
PROBLEM = {
    "type": "/problems/unknown-job",
    "title": "Unknown job",
    "status": 404,
    "detail": "You have no job x.",
}


def test_items_are_sent_as_json_lines_as_they_are_produced(coordinator):
    coordinator.answers(JOB, 202)
    with Mole(coordinator.url) as client:
        job = client.submit_job(({"text": f"Grüße {i}"} for i in range(3)), idempotency_key="k-1")
    assert (job.job_id, job.state, job.eta_seconds) == ("j-1", "running", 2.5)
    method, path, body, headers = coordinator.asked[0]
    assert (method, path) == ("POST", "/api/v1/jobs")
    assert [json.loads(line)["text"] for line in body.splitlines()] == [f"Grüße {i}" for i in range(3)]
    told = {name.lower(): value for name, value in headers.items()}
    assert (told["content-type"], told["idempotency-key"]) == ("application/x-ndjson", "k-1")


def test_many_small_lines_are_few_chunks():
    chunks = list(to_chunks(b'{"text":"x"}\n' for _ in range(20_000)))
    assert len(chunks) == 4
    assert b"".join(chunks) == b'{"text":"x"}\n' * 20_000


def test_a_job_is_looked_at_and_cancelled(coordinator):
    coordinator.answers(JOB)
    with Mole(coordinator.url) as client:
        assert client.job("a/b").total == 4
        assert client.cancel_job("j-1").job_id == "j-1"
    assert [call[:2] for call in coordinator.asked] == [
        ("GET", "/api/v1/jobs/a%2Fb"), ("DELETE", "/api/v1/jobs/j-1"),
    ]  # fmt: skip
    assert path_of("j", "/results") == "/jobs/j/results"


def test_results_are_answers_and_errors(coordinator, answer):
    lines = [{"index": 0, **answer}, {"index": 2, "error": PROBLEM}]
    coordinator.answers("".join(json.dumps(line) + "\n" for line in lines).encode(), Content_Type=LINES)
    with Mole(coordinator.url) as client:
        first, second = client.job_results("j-1")
    assert isinstance(first, ItemResult)
    assert (first.index, first.answer.result, first.error) == (0, "positive", None)
    assert (second.index, second.answer, second.error.status) == (2, None, 404)


async def test_signs_that_part_lines_elsewhere_do_not_part_results(coordinator, answer):
    labels = ["a\u2028b", "c\u2029d", "e\x85f"]
    lines = [
        json.dumps({"index": index, **answer, "result": label}, ensure_ascii=False)
        for index, label in enumerate(labels)
    ]
    coordinator.answers("\n".join(lines).encode(), Content_Type=LINES)  # the last has no end
    with Mole(coordinator.url) as client:
        assert [result.unwrap().result for result in client.job_results("j-1")] == labels
        assert list(client.job_result_lines("j-1")) == lines
    async with AsyncMole(coordinator.url) as other:
        assert [result.unwrap().result async for result in other.job_results("j-1")] == labels
        assert [line async for line in other.job_result_lines("j-1")] == lines


def test_lines_come_out_of_any_pieces():
    whole = "eins\n\nzwölf\r\nthree"
    for size in range(1, 8):
        pieces = [whole.encode()[at : at + size] for at in range(0, len(whole.encode()), size)]
        lines = Lines()
        assert [*(line for piece in pieces for line in lines.add(piece)), *lines.end()] == whole.split("\n")


def test_what_is_refused_or_broken_is_told(coordinator):
    coordinator.answers(PROBLEM, 404)
    with Mole(coordinator.url) as client:
        for call in (client.job, client.cancel_job, lambda job: list(client.job_results(job))):
            with pytest.raises(MoleAPIError, match="You have no job"):
                call("x")
        coordinator.answers(b"<html>\n", Content_Type=LINES)
        with pytest.raises(MoleConnectionError, match="something else"):
            list(client.job_results("x"))
    with Mole("http://127.0.0.1:9") as client, pytest.raises(MoleConnectionError):
        list(client.job_results("x"))


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "text/html"), (200, ""), (204, LINES), (302, LINES), (302, "text/html")]
)
async def test_another_page_is_no_result(coordinator, status: int, kind: str):
    coordinator.answers(b"", status, Content_Type=kind, Location="/login")
    with Mole(coordinator.url) as client, pytest.raises(MoleConnectionError, match=f"HTTP {status}"):
        list(client.job_result_lines("j-1"))
    async with AsyncMole(coordinator.url) as other:
        with pytest.raises(MoleConnectionError, match=f"HTTP {status}"):
            await anext(other.job_results("j-1"))
        with pytest.raises(MoleConnectionError, match=f"HTTP {status}"):
            await anext(other.job_result_lines("j-1"))


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"index": "0"}', '{"index": 0}', '{"index": 0, "error": 1}']
)
def test_what_is_no_result_is_refused(line):
    with pytest.raises(ValueError):
        to_result(line)


def test_the_command_hands_a_file_in(coordinator, tmp_path: Path):
    coordinator.answers(JOB, 202)
    file = tmp_path / "items.jsonl"
    file.write_text('{"text": "x"}\n{"text": "y"}\n')
    done = mole("jobs", "submit", str(file), "--key", "k", "--url", coordinator.url)
    assert done.stdout == "j-1 running: 2 of 4 finished, 1 failed, about 2.5 s left\n"
    assert coordinator.asked[0][2] == file.read_bytes()
    done = mole("jobs", "submit", "-", "--json", MOLE_URL=coordinator.url, stdin='{"text": "z"}\n')
    assert json.loads(done.stdout)["job_id"] == "j-1"
    assert coordinator.asked[1][2] == b'{"text": "z"}\n'


def test_the_command_shows_cancels_and_waits(coordinator):
    coordinator.answers(DONE)
    for verb in ("status", "cancel", "wait"):
        done = mole("jobs", verb, "j-1", "--url", coordinator.url)
        assert (done.returncode, done.stdout) == (0, "j-1 succeeded: 4 of 4 finished, 1 failed\n")
        done = mole("jobs", verb, "j-1", "--json", "--url", coordinator.url)
        assert json.loads(done.stdout)["state"] == "succeeded"
    coordinator.answers(DONE | {"state": "cancelled"})
    assert mole("jobs", "wait", "j-1", "--url", coordinator.url).returncode == 1


def test_the_command_does_not_wait_for_ever(coordinator):
    coordinator.answers(JOB)
    done = mole("jobs", "wait", "j-1", "--timeout", "0", "--url", coordinator.url)
    assert done.returncode == 1
    assert done.stderr == (
        "mole: job j-1 is not finished after 0 s: running: 2 of 4 finished, 1 failed, about 2.5 s left\n"
    )


class Waiting:
    """A client whose looks at a job are set, and the clock that goes on only as it is slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: dict[str, Any] | Exception) -> None:
        self.looks = list(looks)
        self.slept: list[float] = []
        monkeypatch.setattr(jobs_command, "client_for", lambda _url: nullcontext(self))
        monkeypatch.setattr(jobs_command, "time", self)

    def job(self, _job_id: str) -> JobAnswer:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return JobAnswer.model_validate(look)

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_the_command_waits_for_the_whole_time(monkeypatch: pytest.MonkeyPatch):
    waiting = Waiting(monkeypatch, JOB)
    with pytest.raises(CommandError, match="not finished after 1 s"):
        jobs_command.wait("j-1", timeout=1.0)
    assert sum(waiting.slept) == pytest.approx(1.0)


def test_the_command_outlives_a_restart_of_the_coordinator(monkeypatch: pytest.MonkeyPatch):
    gone = MoleConnectionError("http://x", "refused", unsent=True)
    waiting = Waiting(monkeypatch, JOB, gone, gone, DONE)
    jobs_command.wait("j-1", timeout=None)
    assert len(waiting.slept) == 3
    Waiting(monkeypatch, JOB, gone)
    with pytest.raises(CommandError, match="not finished after 2 s"):
        jobs_command.wait("j-1", timeout=2.0)
    forever = Waiting(monkeypatch, JOB, gone)
    with pytest.raises(MoleConnectionError):
        jobs_command.wait("j-1", timeout=None)
    assert 300 <= sum(forever.slept) < 310
    Waiting(monkeypatch, gone)
    with pytest.raises(MoleConnectionError):
        jobs_command.wait("j-1", timeout=2.0)


def test_the_command_prints_results_untouched(coordinator, answer):
    lines = json.dumps({"index": 0, **answer}, ensure_ascii=False) + "\n"
    coordinator.answers(lines.encode(), Content_Type=LINES)
    assert mole("jobs", "results", "j-1", "--url", coordinator.url).stdout == lines
    lines = json.dumps({"index": 0, **answer, "result": "积极 é"}, ensure_ascii=False) + "\n"
    coordinator.answers((lines * 2).encode(), Content_Type=LINES)
    for encoding in ("ascii", "iso-8859-1", "cp1252", "utf-8"):
        done = mole(
            "jobs", "results", "j-1", "--url", coordinator.url, PYTHONIOENCODING=encoding, PYTHONUTF8="0"
        )
        assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["积极 é"] * 2
    coordinator.answers(PROBLEM, 404)
    done = mole("jobs", "results", "x", "--url", coordinator.url)
    assert (done.returncode, done.stderr) == (1, "mole: Unknown job (404): You have no job x.\n")


def test_jobs_are_listed(coordinator):
    coordinator.answers({"jobs": [DONE, JOB]})
    done = mole("jobs", "list", "--url", coordinator.url)
    assert done.returncode == 0
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["succeeded:", "running:"]
    told = mole("jobs", "list", "--json", "--url", coordinator.url)
    assert [job["job_id"] for job in json.loads(told.stdout)["jobs"]] == ["j-1", "j-1"]
    coordinator.answers({"jobs": []})
    assert mole("jobs", "list", "--url", coordinator.url).stderr == "no jobs\n"
