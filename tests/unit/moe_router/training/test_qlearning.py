from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.contracts import UNDETERMINED
from moe_router.errors import ModelAssetError
from moe_router.gating import qnetwork, weights
from moe_router.gating.heads import Distribution
from moe_router.gating.qnetwork import FEATURES, QNetwork
from moe_router.gating.task_router import Action, Observation, State, features
from moe_router.gating.weights import Weights
from moe_router.registry import Expert
from moe_router.training import qlearning
from moe_router.training.qlearning import EXPERT, PROBE, DqnRun, Episodes, first_actions, second_actions

HIDDEN = 4
TASKS = ("a/x", "a/y", "b/z")


def episodes(count: int, rng: np.random.Generator, **changed: Any) -> Episodes:
    def share(*shape: int) -> Any:
        return rng.random(shape).astype(np.float32)

    domain = share(count, 2)
    made = Episodes(
        description=share(count, HIDDEN), text=share(count, HIDDEN),
        task_probability=share(count, 3), none_probability=share(count),
        domain_probability=domain[:, [0, 0, 1]], language_probability=share(count),
        target=rng.integers(-1, 3, count), offered=np.ones((3, 2), bool),
        cost=np.array([0.0, 1.5], np.float32), confidence=share(count, 2), margin=share(count, 2),
        correct=rng.random((count, 2)) < 0.5,
    )  # fmt: skip
    return replace(made, **changed)


def state_of(own: Episodes, row: int) -> State:
    domains = own.domain_probability[row][[0, 2]]
    return State(
        np.zeros(1, np.float32),
        Distribution(TASKS, own.task_probability[row], float(own.none_probability[row]), 0.0),
        Distribution(("a", "b"), domains, 0.0, 0.0),
        "en",
        float(own.language_probability[row]),
    )


def action_of(task: int, tier: int, cost: float) -> Action:
    if tier == PROBE:
        return Action("probe")
    return Action("expert", Expert("e", TASKS[task], "m", None, None, None, None, cost))


SEEDS = st.integers(0, 2**32 - 1)


class TestPhi:
    """What the network is trained on must be what the router shows it."""

    @settings(deadline=None, max_examples=40)
    @given(SEEDS)
    def test_of_first_actions(self, seed):
        rng = np.random.default_rng(seed)
        own = episodes(5, rng, offered=rng.random((3, 2)) < 0.7)
        flat, rows = np.argwhere(own.offered), rng.permutation(5)
        found = first_actions(own, rows, flat)
        assert found.shape == (5, len(flat), len(FEATURES))
        for i, row in enumerate(rows):
            for j, (task, tier) in enumerate(flat):
                action = action_of(task, tier, float(own.cost[tier]))
                expected = features(state_of(own, row), TASKS[task], action, ()).vector()
                np.testing.assert_allclose(found[i, j], expected, rtol=1e-6)

    @settings(deadline=None, max_examples=40)
    @given(SEEDS)
    def test_of_what_follows_the_first_answer(self, seed):
        rng = np.random.default_rng(seed)
        own = episodes(6, rng)
        rows = np.arange(6)
        task, tier = rng.integers(0, 3, 6), rng.integers(0, 2, 6)
        found = second_actions(own, rows, task, tier, np.random.default_rng(1))
        source = np.where(task == own.target, rows, np.random.default_rng(1).permutation(rows))
        for i in range(6):
            asked = action_of(task[i], tier[i], float(own.cost[tier[i]]))
            seen = Observation(
                asked, "yes", float(own.confidence[source[i], tier[i]]), float(own.margin[source[i], tier[i]])
            )
            after = action_of(task[i], 1 - tier[i], float(own.cost[1 - tier[i]]))
            for j, action in enumerate((Action("accept"), after)):
                expected = features(state_of(own, i), TASKS[task[i]], action, (seen,)).vector()
                np.testing.assert_allclose(found[i, j], expected, rtol=1e-6)

    def test_training_never_sees_an_undetermined_language(self):
        """So that the weight of that feature stays what the optimiser's decay makes of it."""
        own = episodes(2, np.random.default_rng(0))
        state = replace(state_of(own, 0), language=UNDETERMINED)
        assert features(state, "a/x", Action("probe"), ()).undetermined == 1.0
        seen = first_actions(own, np.arange(2), np.argwhere(own.offered))
        assert not seen[..., FEATURES.index("undetermined")].any()


class Table(torch.nn.Module):
    """Q by kind of action, whatever the state: one weight each for probe, expert, accept."""

    def __init__(self, probe: float, expert: float, accept: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([probe, expert, accept]))

    def forward(self, _encodings: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        columns = [FEATURES.index(name) for name in ("probe", "expert", "accept")]
        return actions[..., columns] @ self.value


def loss_of(own: Episodes, online: Table, target: Table, run: DqnRun, **kw: Any) -> torch.Tensor:
    rng = np.random.default_rng(0)
    rows = np.arange(len(own.target))
    return qlearning._episode_loss(own, rows, online, target, run, kw.get("epsilon", 0.0), rng)


def huber(error: float, beta: float = 0.2) -> float:
    return error**2 / (2 * beta) if abs(error) < beta else abs(error) - beta / 2


class TestTheTarget:
    RUN = DqnRun(gamma=0.9, cost_weight=0.1)

    def one(self, **changed: Any) -> Episodes:
        return episodes(
            1, np.random.default_rng(0), target=np.array([0]), cost=np.array([0.0, 2.0], np.float32),
            offered=np.array([[True, True], [False, False], [False, False]]), **changed,
        )  # fmt: skip

    def test_by_hand_where_the_probe_goes_first(self):
        """Online prefers the expert next, target values it at 0.3: y = 0 + 0.9 * 0.3, not 0.9 * 0.8."""
        own = self.one(correct=np.array([[False, True]]))
        online, target = Table(0.6, 0.5, 0.4), Table(9.0, 0.3, 0.8)
        first = huber(0.6 - 0.9 * 0.3)
        accept = huber(0.4 - 0.0)  # the probe's label is wrong
        ask = huber(0.5 - (0.9 * 1.0 - 0.1 * 2.0))  # the expert's is right, and costs 2
        assert loss_of(own, online, target, self.RUN).item() == pytest.approx(first + accept + ask, abs=1e-6)

    def test_by_hand_where_the_expert_goes_first(self):
        """After the expert only accepting is left: y = -0.1 * 2 + 0.9 * Q_target(accept)."""
        own = self.one(correct=np.array([[True, True]]))
        online, target = Table(0.2, 0.7, 0.1), Table(5.0, 5.0, 0.5)
        first = huber(0.7 - (0.9 * 0.5 - 0.2))
        accept = huber(0.1 - 1.0)
        assert loss_of(own, online, target, self.RUN).item() == pytest.approx(first + accept, abs=1e-6)

    def test_a_wrong_task_is_never_right(self):
        right, wrong = (self.one(correct=np.array([[True, True]])) for _ in range(2))
        wrong = replace(wrong, target=np.array([-1]))
        online, target = Table(0.2, 0.7, 0.6), Table(0.2, 0.7, 0.6)
        first = huber(0.7 - (0.9 * 0.6 - 0.2))
        assert loss_of(right, online, target, self.RUN).item() == pytest.approx(first + huber(0.4), abs=1e-6)
        assert loss_of(wrong, online, target, self.RUN).item() == pytest.approx(first + huber(0.6), abs=1e-6)

    def test_the_target_network_gets_no_gradient(self):
        own = self.one(correct=np.array([[True, False]]))
        online, target = Table(0.6, 0.5, 0.4), Table(0.1, 0.3, 0.8)
        loss_of(own, online, target, self.RUN).backward()
        assert online.value.grad is not None
        assert target.value.grad is None

    def test_what_is_not_offered_is_never_tried(self):
        own = episodes(40, np.random.default_rng(0), offered=np.tile([False, True], (3, 1)))
        online = Table(100.0, 0.0, 0.0)
        loss_of(own, online, copy.deepcopy(online), self.RUN, epsilon=1.0).backward()
        assert online.value.grad is not None
        assert online.value.grad[0] == 0  # no probe was asked, nor valued


def toy(count: int = 600) -> Episodes:
    """The task is known; the probe is right where it is sure, the costly expert nearly always."""
    rng = np.random.default_rng(5)
    target = rng.integers(0, 3, count)
    known = np.full((count, 3), 0.02, np.float32)
    known[np.arange(count), target] = 0.95
    sure = rng.random(count) < 0.6
    correct = np.stack([sure, rng.random(count) < 0.97], axis=1)
    confidence = np.stack([np.where(sure, 0.95, 0.3), np.full(count, 0.95)], axis=1).astype(np.float32)
    return episodes(
        count, rng, target=target, task_probability=known, none_probability=np.zeros(count, np.float32),
        correct=correct, confidence=confidence, margin=confidence, cost=np.array([0.0, 2.0], np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def learnt() -> Weights:
    run = DqnRun(updates=700, batch=64, learning_rate=3e-3, cost_weight=0.15, target_every=50, width=32)
    return qlearning.train(toy(), run, {"encoder": "tiny", "hidden": HIDDEN})


class TestTraining:
    def values(self, learnt: Weights, own: Episodes, row: int, phi: Any) -> Any:
        network = QNetwork(learnt, HIDDEN)
        return network.values(network.state(own.description[row], own.text[row]), phi)

    def test_it_asks_the_cheap_probe_of_the_right_task_first(self, learnt):
        own = toy()
        flat = np.argwhere(own.offered)
        phi = first_actions(own, np.arange(100), flat)
        chosen = [flat[self.values(learnt, own, row, phi[row]).argmax()] for row in range(100)]
        assert np.mean([task == own.target[row] for row, (task, _) in enumerate(chosen)]) > 0.97
        assert np.mean([tier == PROBE for _, tier in chosen]) > 0.97

    def test_it_accepts_a_sure_probe_and_asks_the_expert_after_an_unsure_one(self, learnt):
        own = toy()
        rows = np.arange(200)
        phi = second_actions(
            own, rows, own.target[rows], np.full(200, PROBE), np.random.default_rng(0)
        )  # fmt: skip
        accepts = [self.values(learnt, own, row, phi[row]).argmax() == 0 for row in rows]
        assert np.mean(np.array(accepts) == own.correct[rows, PROBE]) > 0.97

    def test_the_values_are_near_what_they_stand_for(self, learnt):
        own = toy()
        row = int(np.flatnonzero(~own.correct[:, PROBE])[0])
        task = own.target[[row]]
        phi = second_actions(own, np.array([row]), task, np.array([PROBE]), np.random.default_rng(0))
        accept, ask = self.values(learnt, own, row, phi[0])
        assert accept == pytest.approx(0.0, abs=0.15)
        assert ask == pytest.approx(0.97 * 0.97 - 0.15 * 2, abs=0.15)

    def test_the_same_seed_makes_the_same_weights(self):
        run = DqnRun(updates=5, batch=16)
        first, second = (qlearning.train(toy(50), run, {}) for _ in range(2))
        other = qlearning.train(toy(50), replace(run, seed=1), {})
        for name in first.arrays:
            np.testing.assert_array_equal(first.arrays[name], second.arrays[name])
        assert any((first.arrays[name] != other.arrays[name]).any() for name in first.arrays)

    def test_the_weights_survive_the_file_and_no_other_encoder_takes_them(self, learnt, tmp_path: Path):
        weights.save(tmp_path, qnetwork.WEIGHTS, learnt)
        read = weights.load(tmp_path, qnetwork.WEIGHTS, encoder="tiny", hidden=HIDDEN)
        assert read.meta["features"] == list(FEATURES)
        assert read.meta["run"]["updates"] == 700
        own = toy()
        phi = first_actions(own, np.arange(4), np.argwhere(own.offered))[0]
        assert self.values(read, own, 0, phi) == pytest.approx(self.values(learnt, own, 0, phi), abs=0.01)
        with pytest.raises(ModelAssetError):
            weights.load(tmp_path, qnetwork.WEIGHTS, encoder="other", hidden=HIDDEN)
        with pytest.raises(ModelAssetError):
            QNetwork(read, HIDDEN + 1)

    def test_exploration_is_not_what_the_network_is(self):
        """The trained arrays compute what torch computed."""
        torch.manual_seed(0)
        network = qlearning._Network(HIDDEN, 8)
        state = {name: value.detach().numpy() for name, value in network.state_dict().items()}
        ours = QNetwork(
            Weights(
                {
                    "encoding.weight": state["encoding.weight"], "action.weight": state["action.weight"],
                    "1.bias": state["action.bias"], "2.weight": state["second.weight"],
                    "2.bias": state["second.bias"], "3.weight": state["third.weight"],
                    "3.bias": state["third.bias"],
                },
                {},
            ),
            HIDDEN,
        )  # fmt: skip
        own = toy(3)
        phi = first_actions(own, np.arange(3), np.argwhere(own.offered))
        encodings = torch.from_numpy(np.concatenate([own.description, own.text], axis=1))
        theirs = network(encodings, torch.from_numpy(phi)).detach().numpy()
        for row in range(3):
            found = ours.values(ours.state(own.description[row], own.text[row]), phi[row])
            assert found == pytest.approx(theirs[row], abs=1e-5)


def test_tiers_are_the_columns_of_the_episodes():
    assert (PROBE, EXPERT) == (0, 1)
