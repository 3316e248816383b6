from __future__ import annotations

from app.services.workers.breaker import MOST_COOLDOWNS, Breaker


def fresh() -> Breaker:
    return Breaker(threshold=3, first_cooldown_s=1.0)


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = fresh()
    assert not breaker.failed(0, 0, "500", at_once=False)
    assert not breaker.failed(0, 0, "500", at_once=False)
    breaker.succeeded(0)
    assert not breaker.failed(0, 0, "500", at_once=False)
    assert not breaker.failed(0, 0, "500", at_once=False)
    assert breaker.failed(0, 0, "500", at_once=False)
    assert not breaker.allows(0.5)
    assert breaker.reason == "500"


def test_a_broken_connection_opens_it_at_once() -> None:
    breaker = fresh()
    assert breaker.failed(10, 10, "refused", at_once=True)
    assert breaker.open_until == 11


def test_one_trial_passes_when_the_time_is_over() -> None:
    breaker = fresh()
    breaker.failed(0, 0, "refused", at_once=True)
    assert breaker.allows(1.0)
    assert breaker.begin(1.0)
    assert not breaker.allows(1.0)
    breaker.succeeded(1.0)
    assert breaker.allows(1.0)
    assert breaker.open_until is None


def test_failed_trials_wait_longer_up_to_a_bound() -> None:
    breaker = fresh()
    breaker.failed(0, 0, "refused", at_once=True)
    waits = []
    for _ in range(5):
        now = breaker.open_until or 0.0
        breaker.begin(now)
        breaker.failed(now, now, "refused", at_once=False)
        waits.append((breaker.open_until or 0.0) - now)
    assert waits == [2.0, 4.0, MOST_COOLDOWNS, MOST_COOLDOWNS, MOST_COOLDOWNS]


def test_calls_that_began_before_do_not_prolong_it() -> None:
    breaker = fresh()
    breaker.failed(0, 0, "refused", at_once=True)
    assert not breaker.failed(-1, 0.5, "reset", at_once=True)
    assert not breaker.failed(0.5, 0.5, "reset", at_once=True), "the one more try after a reset"
    assert breaker.open_until == 1.0


def test_calls_that_began_before_do_not_open_it_again() -> None:
    breaker = Breaker(threshold=1, first_cooldown_s=1.0)
    breaker.failed(5, 5, "reset", at_once=True)
    assert not breaker.failed(4, 6, "timeout", at_once=True), "half open: it is no trial"
    breaker.begin(6)
    breaker.succeeded(began=6)
    assert not breaker.failed(4, 7, "timeout", at_once=True)
    assert (breaker.open_until, breaker.failures) == (None, 0)
    assert breaker.failed(6.5, 7, "timeout", at_once=True)


def test_the_success_of_a_call_that_began_before_closes_nothing() -> None:
    breaker = fresh()
    breaker.failed(5, 5, "refused", at_once=True)
    breaker.succeeded(began=4)
    assert breaker.open_until == 6
    breaker.begin(6)
    breaker.succeeded(began=6)
    assert breaker.open_until is None


def test_a_trial_that_is_answered_at_last_closes_it_whatever_failed_meanwhile() -> None:
    breaker = fresh()
    breaker.failed(0, 0, "timeout", at_once=True)
    breaker.begin(1)
    assert breaker.failed(2, 17, "timeout", at_once=True), "the prober's, beside a caller's"
    breaker.begin(19)
    assert breaker.failed(19, 34, "timeout", at_once=True)
    breaker.succeeded(began=1)
    assert (breaker.open_until, breaker.failures, breaker.trial) == (None, 0, False)
    breaker.failed(50, 50, "timeout", at_once=True)
    breaker.succeeded(began=40)
    assert breaker.open_until == 51, "after it was closed, it is a call like others"


def test_a_cancelled_trial_lets_another_pass() -> None:
    breaker = fresh()
    breaker.failed(0, 0, "refused", at_once=True)
    breaker.begin(2)
    breaker.abandoned(began=1)
    assert not breaker.allows(2), "it was another call, from before the trial"
    breaker.abandoned(began=2)
    assert breaker.allows(2)


def test_the_worker_may_say_for_how_long() -> None:
    breaker = fresh()
    breaker.failed(0, 0, "503", at_once=True, for_s=7)
    assert breaker.open_until == 7
