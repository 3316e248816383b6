from __future__ import annotations

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import ServerAwayError
from moe_router.experts.load_failures import CHEAP_PAUSE_S, MOST_PAUSE_S, PAUSE_S, LoadFailure, LoadFailures

GONE = LoadFailure.of(ModelAssetError("the disk is gone"))
AWAY = LoadFailure.of(ServerAwayError("no answer"))


def test_each_further_failure_doubles_the_pause_up_to_its_bound() -> None:
    now = [0.0]
    failures = LoadFailures(lambda: now[0])
    for pause_s in (PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S, 8 * PAUSE_S, MOST_PAUSE_S, MOST_PAUSE_S):
        failures.note("m", GONE)
        now[0] += pause_s - 1
        assert failures.left_alone("m") == "the disk is gone"
        now[0] += 1
        assert failures.left_alone("m") is None
    assert failures.reasons() == {"m": "the disk is gone"}
    failures.forget("m")
    assert failures.reasons() == {}


def test_what_took_nobodys_room_is_tried_again_soon() -> None:
    now = [0.0]
    failures = LoadFailures(lambda: now[0])
    for failure in (AWAY, LoadFailure.of(ModelAssetError("no answer"), cheap=True), AWAY):
        failures.note("m", failure)
        assert failures.left_alone("m") == "no answer"
        now[0] += CHEAP_PAUSE_S
        assert failures.left_alone("m") is None
    failures.note("m", GONE)
    now[0] += PAUSE_S - 1
    assert failures.left_alone("m") is not None
    failures.clear()
    assert failures.left_alone("m") is None
