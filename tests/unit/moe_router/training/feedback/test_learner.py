"""Learning in a small world: what feedback teaches, and what it must not."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest

from moe_router.gating.task_router import Policy
from moe_router.gating.versions import PRIOR_SKILLS, pack
from moe_router.training.feedback.head_update import HeadRun
from moe_router.training.feedback.judging import Bars
from moe_router.training.feedback.learner import LearnRun, learn
from moe_router.training.feedback.memory import Memory
from moe_router.training.feedback.replay import Step
from moe_router.training.feedback.skills import prior_skills
from moe_router.training.feedback.states import state_at
from tests.unit.moe_router.gating.made import CLASSES, axis, registry
from tests.unit.moe_router.training.feedback_world import NOVEL, memory, noisy, replay, row, serving, shipped

RUN = LearnRun(q_updates=20, bars=Bars(answers_fall=1.0))
"""The toy network was made by hand: its answers are no measure for one that is being trained."""
JUDGES = 5
"""Of the callers c-0 to c-23."""
FAULTED = Step("expert:m", None, 0.0, 0.0, 1.0, fault="no-worker")


@pytest.fixture(scope="module")
def kept() -> Memory:
    return memory(np.random.default_rng(0))


def shifted(count: int, rng: np.random.Generator, callers: int = 24) -> list[dict[str, Any]]:
    """Callers ask for b/z by a new word, and say so; the live router went to a/x."""
    return [
        row(
            caller=f"c-{i % callers}", judged_at=float(-i), description=noisy(NOVEL, rng),
            correct_task="b/z", correct_label="yes",
        )
        for i in range(count)
    ]  # fmt: skip


def poison(count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One caller says of plain requests for each task that they were for the next one."""
    return [
        row(
            caller="evil", judged_at=float(-i), description=noisy(axis(i % 3), rng),
            task=CLASSES[i % 3], correct_task=CLASSES[(i + 1) % 3],
        )
        for i in range(count)
    ]  # fmt: skip


def chosen(weights: Any, rows: list[dict[str, Any]]) -> list[str]:
    own = serving()
    router, judged = own.make(weights), replay(rows)
    return [router.choose_task(state_at(router, own.domains, judged, i)) for i in range(len(judged))]


def test_a_new_word_for_a_task_is_learned_and_the_old_tasks_stay(kept):
    rng = np.random.default_rng(1)
    found = learn(replay(shifted(240, rng)), serving(), kept, RUN)
    assert found is not None
    assert found.verdict.reasons == ()
    unseen = shifted(40, rng)
    assert chosen(shipped(), unseen).count("b/z") < 30
    assert chosen(found.weights, unseen).count("b/z") >= 38
    guard = found.metrics["guard"]
    assert guard["candidate"]["accuracy"] >= guard["shipped"]["accuracy"] - 0.002
    assert found.metrics["held_out_by"] == "caller"
    assert found.metrics["held_out"]["callers"] == JUDGES
    assert found.metrics["taught"] == {"rows": 190, "callers": 19, "tasks_told": 190, "answers_judged": 0}


def test_two_callers_who_agree_are_enough_where_it_is_clear(kept):
    """Nobody judges alone, nor is anybody left out: each one's rows are held out in part."""
    found = learn(replay(shifted(120, np.random.default_rng(1), callers=2)), serving(), kept, RUN)
    assert found.verdict.reasons == ()
    assert found.metrics["held_out_by"] == "request"
    assert found.metrics["held_out"]["callers"] == found.metrics["taught"]["callers"] == 2


def test_a_candidate_abstains_by_the_shipped_curve_and_not_by_one_of_the_guard(kept):
    """On the guard of this world hardly anything is wrong: a curve measured there has no such point."""
    found = learn(replay(shifted(120, np.random.default_rng(1))), serving(), kept, RUN)
    (shipped_point,) = shipped().tasks.meta["coverage_risk"]
    (point,) = found.weights.tasks.meta["coverage_risk"]
    assert point["risk"] == shipped_point["risk"]
    assert point["threshold"] >= shipped_point["threshold"]
    assert found.metrics["guard"]["threshold"] == {
        "candidate": point["threshold"], "shipped": shipped_point["threshold"],
    }  # fmt: skip


def test_what_judged_the_first_run_never_teaches_a_later_one(kept):
    """The second run goes on from the first, sees new rows as well, and teaches by none that judged."""
    rng = np.random.default_rng(1)
    early = [r | {"judged_at": 0.0} for r in shifted(120, rng)]
    first = learn(replay(early), serving(), kept, RUN)
    late = [r | {"judged_at": 9.0} for r in shifted(120, rng)]
    again = learn(
        replay(late + early), serving(first.weights), kept, RUN, [(5.0, first.metrics["held_out_by"])]
    )
    assert again.metrics["taught"]["rows"] == 2 * first.metrics["taught"]["rows"]
    assert again.metrics["held_out"]["callers"] == first.metrics["held_out"]["callers"] == JUDGES


def test_it_is_the_same_for_the_same_input(kept):
    rows = replay(shifted(60, np.random.default_rng(1)))
    blobs = [pack(learn(rows, serving(), kept, RUN).weights)[0] for _ in range(2)]
    assert blobs[0] == blobs[1]


@pytest.mark.parametrize("rows", [200, 2000])
def test_poison_from_one_caller_is_refused_or_harmless(kept, rows):
    rng = np.random.default_rng(2)
    found = learn(replay(poison(rows, rng)), serving(), kept, RUN)
    assert found is not None
    guard = found.metrics["guard"]
    fall = guard["shipped"]["accuracy"] - guard["candidate"]["accuracy"]
    assert fall < 0.005 or not found.verdict.passed


def test_without_its_anchor_poison_would_win_and_the_guard_refuses_it(kept):
    run = changed(RUN, head=HeadRun(feedback=1e4, proximal=0.0))
    found = learn(replay(poison(2000, np.random.default_rng(2))), serving(), kept, run)
    assert found.metrics["guard"]["candidate"]["accuracy"] < 0.8
    assert any(reason.startswith("guard: accuracy") for reason in found.verdict.reasons)


def test_one_callers_poison_does_not_outweigh_the_others(kept):
    rng = np.random.default_rng(3)
    word = noisy(NOVEL, rng, 0.0)
    lies = [row(caller="evil", description=word, judged_at=-9.0, correct_task="a/y") for _ in range(500)]
    truth = [
        row(caller=f"c-{i}", description=word, judged_at=-8.0, correct_task="b/z")
        for i in range(7) for _ in range(5)
    ]  # fmt: skip
    found = learn(replay(lies + truth), serving(), kept, RUN)
    assert chosen(found.weights, truth[:1]) == ["b/z"]


def test_one_who_lies_about_answers_does_not_teach_the_router_to_distrust_what_is_sure(kept):
    """He calls sure answers wrong and unsure ones right; nobody else says anything."""
    lies = []
    for i in range(2000):
        sure = i % 2 == 0
        step = Step("expert:m", "yes", 0.97 if sure else 0.2, 0.94 if sure else 0.05, 1.0, accepted=True)
        lies.append(
            row(caller="evil", judged_at=float(-i), steps=(step,), correct_label="no" if sure else "yes")
        )
    run = LearnRun(q_updates=400, q_learning_rate=3e-3)
    trained = learn(replay(shifted(40, np.random.default_rng(1))), serving(), kept, run).weights
    found = learn(replay(lies), serving(trained), kept, run)
    guard = found.metrics["guard"]
    assert guard["live"]["value"] > guard["shipped"]["value"]
    assert guard["candidate"]["value"] > guard["live"]["value"] - 0.02 or not found.verdict.passed


class TestFaults:
    def dead(self, count: int) -> list[dict[str, Any]]:
        return [
            row(caller=f"d-{i % 9}", steps=(FAULTED,), fault="no-worker", correct_label="yes", score=0.0)
            for i in range(count)
        ]

    def test_a_dead_expert_teaches_nothing(self, kept):
        assert learn(replay(self.dead(400)), serving(), kept, RUN) is None

    def test_a_dead_expert_changes_neither_skills_nor_values(self, kept):
        """Among rows that do teach, its faults leave every bit as it is."""
        good = [
            row(caller=f"c-{i % 24}", judged_at=float(-i), correct_label=("yes", "no")[i % 3 == 0])
            for i in range(72)
        ]
        without = learn(replay(good), serving(), kept, RUN)
        among = learn(replay(self.dead(300) + good + self.dead(100)), serving(), kept, RUN)
        assert pack(among.weights) == pack(without.weights)
        assert among.metrics == without.metrics

    def test_an_answer_after_a_fault_counts_for_who_gave_it_alone(self, kept):
        good = Step("probe", "yes", 0.8, 0.6, 0.0, accepted=True)
        rows = [
            row(caller=f"c-{i % 5}", steps=(FAULTED, good), fault="no-worker", correct_label="yes")
            for i in range(40)
        ]
        skills = learn(replay(rows), serving(), kept, RUN).weights.q_weights.meta["skills"]
        assert skills["a/x"].keys() == {"probe"}
        assert skills["a/x"]["probe"] > 0.85


def test_skills_start_anew_from_what_was_known_before_feedback(kept):
    rows = [row(caller=f"c-{i % 24}", correct_label="no") for i in range(96)]
    first = learn(replay(rows), serving(), kept, RUN).weights
    again = learn(replay(rows), serving(first), kept, RUN).weights
    assert first.q_weights.meta["skills"]["a/x"]["m"] == pytest.approx(0.75 * 20 / (20 + 19 * 4))
    assert again.q_weights.meta["skills"] == first.q_weights.meta["skills"]
    assert again.q_weights.meta[PRIOR_SKILLS] == {}


def test_a_probe_that_came_later_counts_as_it_was_measured():
    meta = {"skills": {"a/x": {"m": 0.2}}, PRIOR_SKILLS: {"b/z": {"m": 0.6}}}
    known = {"a/x": {"m": 0.2, "probe": 0.9}}
    assert prior_skills(meta, known) == {"a/x": {"probe": 0.9}, "b/z": {"m": 0.6}}


def test_a_probe_that_was_fitted_anew_counts_as_it_is_measured_now():
    meta = {"skills": {"a/x": {"m": 0.2, "probe": 0.5}}, PRIOR_SKILLS: {"a/x": {"m": 0.6, "probe": 0.7}}}
    anew = {"a/x": {"m": 0.2, "probe": 0.9}}
    assert prior_skills(meta, anew) == {"a/x": {"m": 0.6, "probe": 0.9}}
    assert prior_skills(meta, meta["skills"]) == meta[PRIOR_SKILLS]


def test_an_explored_expert_that_is_better_gets_the_candidate_promoted(kept):
    """The live router knows no difference and takes the first; one row in five explores."""
    experts = [{"name": n, "base_model_key": "m", "cost": 1.0} for n in ("old", "new")]
    own = registry({"a/x": {"experts": experts}, "a/y": {}, "b/z": {}})
    rows = []
    for i in range(400):
        explored = i % 5 == 0
        name = "new" if explored else "old"
        step = Step(f"expert:{name}", "yes", 0.8, 0.6, 1.0, accepted=True)
        right = i % 20 != 0 if explored else i % 3 == 0
        rows.append(
            row(
                caller=f"c-{i % 23}", judged_at=float(-i), steps=(step,),
                propensity=0.1 if explored else 0.9, correct_label="yes" if right else "no",
            )
        )  # fmt: skip
    found = learn(
        replay(rows), serving(own=own, policy=Policy(exploration=0.2)), kept,
        changed(RUN, q_updates=400, q_learning_rate=2e-3),
    )  # fmt: skip
    skills = found.weights.q_weights.meta["skills"]["a/x"]
    assert skills["new"] > 0.7 > 0.4 > skills["old"]
    value = found.metrics["held_out"]["value"]
    assert value["candidate"] > value["live"] + 0.1
    assert found.verdict.reasons == ()
