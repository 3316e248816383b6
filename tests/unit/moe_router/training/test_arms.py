"""Arms that are drawn are calibrated, find the same requests hard, and are others every time."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from moe_router.gating.qnetwork import FEATURES, QNetwork
from moe_router.training import qlearning
from moe_router.training.arms import ARMS, drawn_anew, drawn_arms
from moe_router.training.episodes import PROBE, Episodes
from tests.unit.moe_router.training.made import HIDDEN, episodes


@pytest.fixture(scope="module")
def arms() -> dict[str, np.ndarray]:
    return drawn_arms(20_000, np.random.default_rng(0))


def test_what_the_arms_would_answer_is_calibrated(arms):
    for arm in range(ARMS):
        confidence, correct = arms["confidence"][:, arm], arms["correct"][:, arm]
        for low in (0.2, 0.5, 0.8):
            own = (confidence >= low) & (confidence < low + 0.2)
            assert correct[own].mean() == pytest.approx(confidence[own].mean(), abs=0.03)
    same = arms["label"][:, 0] == arms["label"][:, 1]
    assert (arms["correct"][:, 0] & arms["correct"][:, 1] <= same).all()


def test_experts_heard_with_the_probe_follow_it_more_than_others_do(arms):
    with_probe = arms["offered"][:, PROBE]
    pooled = arms["pooled"][:, 1]
    assert not arms["pooled"][:, PROBE].any()
    assert not pooled[~with_probe].any()
    assert pooled[with_probe].mean() == pytest.approx(0.5, abs=0.03)

    def alike(rows: np.ndarray) -> float:
        return float(np.corrcoef(arms["confidence"][rows, PROBE], arms["confidence"][rows, 1])[0, 1])

    assert alike(pooled) > alike(~pooled) + 0.2 > 0.3


def test_only_drawn_arms_are_drawn_anew():
    own = replace(
        episodes(400, np.random.default_rng(0)), drawn=np.arange(400) % 2 == 0, skill=np.full((400, 3), 0.5)
    )
    other = drawn_anew(own, np.random.default_rng(1))
    drawn = drawn_arms(1, np.random.default_rng(0)).keys() - {"drawn"}
    for field in fields(Episodes):
        before, after = getattr(own, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(before[1::2], after[1::2])
        if field.name not in drawn:
            np.testing.assert_array_equal(before, after)
    assert (other.skill[::2] != 0.5).all()
    assert (drawn_anew(other, np.random.default_rng(2)).confidence[::2] != other.confidence[::2]).all()


def worth_of_accepting(weights: object, own: Episodes, confidence: float) -> np.ndarray:
    """The value of accepting a probe's answer of that confidence on each text."""
    network = QNetwork(weights, HIDDEN)  # type: ignore[arg-type]
    phi = np.zeros((1, len(FEATURES)), np.float32)
    told = {"accept": 1, "probe": 1, "skill": 0.7, "confidence": confidence, "asked": 0.25} | {
        "task_probability": 1, "domain_probability": 1, "language_probability": 1,
        "best_confidence": confidence, "best_skill": 0.7,
    }  # fmt: skip
    for name, value in told.items():
        phi[:, FEATURES.index(name)] = value
    return np.array([network.values(network.state(None, text), phi)[0] for text in own.text])


def test_a_text_does_not_tell_who_is_right_on_it():
    """Of few requests a network learns by heart what their arms answered, unless these are drawn anew."""
    rng = np.random.default_rng(0)
    count = 8
    own = episodes(
        count, rng, tasks=1, target=np.zeros(count, np.intp),
        description=np.zeros((count, HIDDEN), np.float32),
        text=rng.normal(size=(count, HIDDEN)).astype(np.float32),
        task_probability=np.ones((count, 1), np.float32), domain_probability=np.ones((count, 1), np.float32),
        **drawn_arms(count, rng),
    )  # fmt: skip
    run = qlearning.DqnRun(updates=150, batch=48, learning_rate=1e-2, width=16, encoding_decay=1e-3)
    spread = {}
    for drawn in (True, False):
        learnt = qlearning.train(replace(own, drawn=np.full(count, drawn)), run, {})
        spread[drawn] = worth_of_accepting(learnt, own, 0.7).std()
    assert spread[True] < 0.5 * spread[False]
