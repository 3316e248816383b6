"""Each class of failure at one of two replicas: the other mends it, it is told, and a trial ends it."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.services.test_faults import post, tell, until_healthy, workers
from tests.integration.services.test_services import eventually, get
from tests.stubs import files
from tests.stubs.processes import Process, Stage

pytestmark = pytest.mark.slow
BAD, GOOD = "worker-0", "worker-1"
REFUSED = "refused"
OUTCOMES = {
    REFUSED: "refused",
    "reset": "reset",
    "hang": "timeout",
    "error": "error",
    "unavailable": "unavailable",
    "garbage": "invalid",
    "truncated": "truncated",
    "drip": "timeout",
}
"""How the worker fails, and what the coordinator calls it."""


class Pair:
    """A coordinator over two replicas, one of which is made to fail."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.bad, good = stage.faulty(), stage.faulty()
        files.write(stage.folder, files.mapping(self.bad.url, good.url))
        # Probes are rare: where nobody listens any more, a request is to find it out.
        given = {"MOLE_PROBE_INTERVAL_SECONDS": "1", "MOLE_EJECT_SECONDS": "2"}
        self.coordinator: Process = stage.coordinator(REQUEST_TIMEOUT_SECONDS="0.5", **given)
        self.coordinator.wait_for("/api/v1/health/ready")

    def told(self) -> dict[str, Any]:
        """What `/workers` says of the one that fails."""
        found: dict[str, Any] = workers(self.coordinator)[BAD]
        return found

    def ask(self) -> str:
        """Who answered a request, which never fails."""
        answer = post(self.coordinator)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["worker_id"])

    def ejected(self, mode: str) -> dict[str, Any]:
        """Makes it fail, and asks until it is ejected; what `/workers` says then."""
        for _ in range(10):
            self._break(mode)
            while self.told()["state"] == "healthy":
                assert self.ask() == GOOD
            if mode == REFUSED:  # down, as long as nobody listens there
                self.bad.wait_end()
                self.bad = self.stage.faulty(port=self.bad.port)
                eventually(lambda: self.told()["state"] != "down")
            if (told := self.told())["state"] == "ejected":
                return told
            until_healthy(self.coordinator, BAD)  # a probe came before any request, after all
        raise AssertionError(told)

    def trials(self) -> float:
        """How many trials it has passed."""
        name = f'mole_worker_trials_total{{outcome="ok",worker="{BAD}"}} '
        lines = get(self.coordinator, "/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    def _break(self, mode: str) -> None:
        if mode == REFUSED:
            self.bad.send(signal.SIGKILL)
        else:
            tell(self.bad, mode)


@pytest.fixture(scope="module")
def pair(shared_stage: Stage) -> Pair:
    return Pair(shared_stage)


@pytest.mark.parametrize(("mode", "outcome"), OUTCOMES.items())
def test_it_is_ejected_and_comes_back_by_a_trial(pair: Pair, mode: str, outcome: str) -> None:
    tell(pair.bad, "ok")
    until_healthy(pair.coordinator, BAD, GOOD)
    told = pair.ejected(mode)
    assert told["reason"].startswith(f"{outcome}: {BAD} ")
    until, trials = datetime.fromisoformat(told["until"]), pair.trials()
    tell(pair.bad, "ok")
    while pair.told()["state"] != "healthy":
        assert pair.ask() == GOOD or datetime.now(UTC) >= until
    assert datetime.now(UTC) >= until
    assert pair.trials() == trials + 1
    eventually(lambda: pair.ask() == BAD)
