"""When a request is tried again, and after how long."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mole import Mole, MoleAPIError, MoleConnectionError, Retry
from mole.batches import Batch, perform_batch
from mole.calls import batch, cancel_job, classify, feedback, route, submit_job, tasks
from mole.exchange import Pause, Reply, perform, seconds
from mole.retry import Patience
from tests.unit.mole.conftest import ANSWER

PROBLEM = {"type": "t:full", "title": "Full", "status": 503, "detail": "Later."}


def test_backoff_doubles_up_to_its_bound_and_then_ends():
    retry = Retry(attempts=6, first_pause_s=1.0, longest_pause_s=4.0, dice=lambda: 0.0)
    assert [retry.pause(n) for n in range(1, 7)] == [0.5, 1.0, 2.0, 2.0, 2.0, None]
    assert Retry(first_pause_s=1.0, dice=lambda: 0.999).pause(1) == pytest.approx(1.0, abs=0.01)


def test_an_outage_may_last_for_ever():
    assert Retry(attempts=10**6, longest_pause_s=30).pause(10**5) <= 30


def test_retry_after_is_never_undercut_and_not_waited_for_without_end():
    retry = Retry(first_pause_s=1.0, longest_pause_s=30.0, dice=lambda: 0.5)
    assert retry.pause(1, 7.0) == pytest.approx(7.35)
    assert retry.pause(3, 0.0) == 3.0
    assert retry.pause(1, 31.0) is None
    assert Retry(attempts=1).pause(1, 0.0) is None


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert seconds("7") == 7.0
    assert seconds("Thu, 01 Jan 2026 12:00:09 GMT", now) == 9.0
    assert seconds("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0.0
    assert [seconds(value) for value in (None, "", "soon", "-1")] == [None] * 4


class Script:
    """A service that fails as it is told, and a clock that only notes."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.pauses: list[float] = []
        self.asked = 0
        self.lasting = 0.0
        """seconds of an attempt"""

    @property
    def now(self) -> float:
        return self.asked * self.lasting + sum(self.pauses)

    def play(self, call, retry: Retry):
        return self.talk(perform(call, retry, "http://x", Patience(lambda: self.now)))

    def talk(self, talk):
        outcome = None
        while True:
            try:
                step = talk.send(outcome)
            except StopIteration as done:
                return done.value
            if isinstance(step, Pause):
                self.pauses.append(step.seconds)
                outcome = None
                continue
            self.asked += 1
            status = self.statuses.pop(0)
            if status < 100:
                outcome = MoleConnectionError("http://x", "gone", unsent=status == 0, broken=status == 1)
            elif step.path == "/classify/batch":
                outcome = Reply(200, self.batch(step, status))
            else:
                outcome = Reply(status, _body(status), "2" if status == 503 else None)

    def batch(self, call, status: int) -> bytes:
        """All of its items end so."""
        items = json.loads(call.content())["items"]
        one = ANSWER if status == 200 else {"error": PROBLEM | {"status": status}}
        return json.dumps({"results": [one] * len(items)}).encode()


def _body(status: int) -> bytes:
    return json.dumps(ANSWER if status == 200 else PROBLEM | {"status": status}).encode()


CALM = Retry(attempts=3, first_pause_s=1.0, dice=lambda: 0.0)


def test_passing_faults_are_tried_again():
    script = Script(503, 429, 200)
    assert script.play(classify("x"), CALM).result == "positive"
    assert script.pauses == [2.0, 1.0]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_in_the_end_the_fault_is_raised(status: int):
    script = Script(*[status] * 3)
    with pytest.raises(MoleAPIError, match="Later") as raised:
        script.play(classify("x"), CALM)
    assert (raised.value.status, script.asked) == (status, 3)


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 413, 422, 500, 501])
def test_what_is_no_passing_fault_is_asked_once(status: int):
    script = Script(status)
    with pytest.raises(MoleAPIError):
        script.play(classify("x"), CALM)
    assert (script.asked, script.pauses) == (1, [])


def test_a_stream_that_can_be_read_once_is_sent_once():
    script = Script(503)
    with pytest.raises(MoleAPIError):
        script.play(submit_job({"text": t} for t in "ab"), CALM)
    assert script.asked == 1
    script = Script(503, 503, 503)
    with pytest.raises(MoleAPIError):
        script.play(submit_job([{"text": t} for t in "ab"]), CALM)
    assert script.asked == 3


def test_a_job_that_is_sent_again_keeps_its_idempotency_key(coordinator):
    coordinator.answers(PROBLEM, 503)
    with Mole(coordinator.url, retry=Retry(attempts=2, first_pause_s=0.0)) as mole:
        with pytest.raises(MoleAPIError):
            mole.submit_job(["a"])
        with pytest.raises(MoleAPIError):
            mole.submit_job(["a"])
    keys = [asked[3]["Idempotency-Key"] for asked in coordinator.asked]
    assert (keys[0], keys[2]) == (keys[1], keys[3])
    assert keys[0] != keys[2]


CALLS = [
    classify("x"), route("x"), batch([{"text": "x"}]), feedback("r", score=1.0), submit_job(["x"]), tasks(),
    cancel_job("j"),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_what_does_nothing_twice_is_sent_again_where_the_connection_broke_off(call):
    script = Script(1, 0, 1)
    with pytest.raises(MoleConnectionError, match="gone"):
        script.play(call, CALM)
    assert script.asked == 3


def test_a_time_that_is_up_and_a_stream_are_not_sent_again():
    for call, fault in ((classify("x"), 2), (submit_job(iter(["x"])), 1)):
        script = Script(fault)
        with pytest.raises(MoleConnectionError):
            script.play(call, CALM)
        assert script.asked == 1


@pytest.mark.parametrize("headers", [{}, {"Content_Length": "9999"}])
def test_a_connection_that_breaks_off_is_made_anew(coordinator, answer, headers: dict[str, str]):
    """Before the answer, as at the service's restart, or within it."""
    coordinator.answers(answer, **headers)
    coordinator.breaks = 0 if headers else 2
    with Mole(coordinator.url, retry=CALM) as mole:
        mole._sleep = lambda _: coordinator.answers(answer) if headers else None
        assert mole.classify("x").result == "positive"
    assert len(coordinator.asked) == (2 if headers else 3)


def test_the_callers_time_bounds_a_call_whatever_fails():
    """A 504 says that it is up; else nothing begins after it."""
    script = Script(504)
    with pytest.raises(MoleAPIError):
        script.play(classify("x", timeout_seconds=60), CALM)
    assert (script.asked, script.pauses) == (1, [])
    for fault in (502, 429, 0, 1):
        script = Script(*[fault] * 3)
        script.lasting = 1.0
        with pytest.raises((MoleAPIError, MoleConnectionError)):
            script.play(route("x", timeout_seconds=2.6), CALM)
        assert (script.asked, script.pauses) == (2, [0.5])  # a third would begin after 3.5 s


def test_the_callers_time_bounds_each_item_of_a_batch():
    def play(script: Script, *stated: float | None) -> list[int | None]:
        items = [{"text": "x"} | ({"options": {"timeout_seconds": s}} if s else {}) for s in stated]
        found = script.talk(perform_batch(Batch(0, 0, items), CALM, "http://x", Patience(lambda: script.now)))
        return [result.error.status if result.error else None for result in found]

    script = Script(504, 200)
    assert play(script, 5.0, None) == [504, None]
    script = Script(503, 503, 200)
    script.lasting = 1.0
    assert play(script, 1.2, 3.2, None) == [503, 503, None]
    assert script.pauses == [0.5, 1.0]
    script = Script(503, 200)  # the first one's time is over when the second attempt would begin
    script.lasting = 1.0
    assert play(script, 1.2, 9.0) == [503, None]
    script = Script(504)
    assert play(script, 5.0, 9.0) == [504, 504]


def test_a_refused_connection_is_tried_again():
    pauses: list[float] = []
    with Mole("http://127.0.0.1:9", retry=CALM) as mole:
        mole._sleep = pauses.append
        with pytest.raises(MoleConnectionError) as raised:
            mole.tasks()
    assert raised.value.unsent
    assert pauses == [0.5, 1.0]
