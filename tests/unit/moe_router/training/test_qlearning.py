"""The Q-learning update by hand, and what a trained network has learned of a toy world."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moe_router.errors import ModelAssetError
from moe_router.gating import qnetwork, weights
from moe_router.gating.qnetwork import FEATURES, QNetwork
from moe_router.gating.weights import Weights
from moe_router.training import qlearning
from moe_router.training.episodes import Episodes, Known, ask_features, start_features
from moe_router.training.qlearning import DqnRun, Network
from tests.unit.moe_router.training.made import HIDDEN, episodes

GAMMA = 0.9


class Table(torch.nn.Module):
    """Q by kind of action, whatever the state: one weight each for probe, expert, accept."""

    def __init__(self, probe: float, expert: float, accept: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([probe, expert, accept]))

    def forward(self, _encodings: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        asks = 1 - actions[..., FEATURES.index("accept")]
        columns = [actions[..., FEATURES.index(name)] * asks for name in ("probe", "expert")]
        return torch.stack([*columns, 1 - asks], dim=-1) @ self.value


def loss_of(own: Episodes, online: Table, target: Table, epsilon: float = 0.0) -> torch.Tensor:
    return qlearning.episode_loss(own, online, target, GAMMA, epsilon, np.random.default_rng(0))


class TestTheTarget:
    """One task, a free probe and one expert that costs 0.2."""

    def one(self, **changed: Any) -> Episodes:
        given: dict[str, Any] = {
            "target": np.array([0]), "price": np.array([[0.0, 0.2]], np.float32),
            "offered": np.array([[True, True]]),
        }  # fmt: skip
        return episodes(1, np.random.default_rng(0), tasks=1, arms=2, **(given | changed))

    def test_by_hand_where_the_probe_goes_first(self):
        """After it the online network prefers the expert, which the target network values at 0.3."""
        own = self.one(correct=np.array([[False, True]]))
        online, target = Table(0.6, 0.5, 0.4), Table(9.0, 0.3, 0.8)
        first = (0.6 - GAMMA * 0.3) ** 2  # not 0.9 * 0.8: the target network's own best
        accept = (0.4 - 0.0) ** 2  # the probe's label is wrong
        ask = (0.5 - (GAMMA * 0.8 - 0.2)) ** 2  # then only accepting is left
        # The expert is asked: both answers can be accepted now, the probe's for 0, the expert's for 1.
        last = ((0.4 - 0.0) ** 2 + (0.4 - 1.0) ** 2) / 2
        assert loss_of(own, online, target).item() == pytest.approx(first + accept + ask + last, abs=1e-6)

    def test_by_hand_where_the_expert_goes_first(self):
        """After the expert only accepting is left: the probe was there to be asked first."""
        own = self.one(correct=np.array([[True, True]]))
        online, target = Table(0.2, 0.7, 0.1), Table(5.0, 5.0, 0.5)
        first = (0.7 - (GAMMA * 0.5 - 0.2)) ** 2
        accept = (0.1 - 1.0) ** 2
        assert loss_of(own, online, target).item() == pytest.approx(first + accept, abs=1e-6)

    def test_a_wrong_task_is_never_right(self):
        right = self.one(correct=np.array([[True, True]]))
        wrong = replace(right, target=np.array([-1]))
        online = Table(0.2, 0.7, 0.6)
        first = (0.7 - (GAMMA * 0.6 - 0.2)) ** 2
        assert loss_of(right, online, online).item() == pytest.approx(first + 0.4**2, abs=1e-6)
        assert loss_of(wrong, online, online).item() == pytest.approx(first + 0.6**2, abs=1e-6)

    def test_the_target_network_gets_no_gradient(self):
        online, target = Table(0.6, 0.5, 0.4), Table(0.1, 0.3, 0.8)
        loss_of(self.one(), online, target).backward()
        assert online.value.grad is not None
        assert target.value.grad is None

    def test_what_is_not_offered_is_never_tried(self):
        own = episodes(40, np.random.default_rng(0), offered=np.tile([False, True, False], (40, 1)))
        online = Table(100.0, 0.0, 0.0)
        loss_of(own, online, copy.deepcopy(online), epsilon=1.0).backward()
        assert online.value.grad is not None
        assert online.value.grad[0] == 0  # no probe was asked, nor valued


def toy(count: int = 600) -> Episodes:
    """The task is known; the probe is right where it is sure, the costly expert in seven of ten cases."""
    rng = np.random.default_rng(5)
    target = rng.integers(0, 3, count)
    known = np.full((count, 3), 0.02, np.float32)
    known[np.arange(count), target] = 0.95
    sure = rng.random(count) < 0.5
    confidence = np.stack([np.where(sure, 0.95, 0.2), np.full(count, 0.7), np.full(count, 0.5)], axis=1)
    correct = np.stack([sure, rng.random(count) < 0.7, np.zeros(count, bool)], axis=1)
    return episodes(
        count, rng, target=target, task_probability=known, domain_probability=known,
        none_probability=np.zeros(count, np.float32), language_probability=np.ones(count, np.float32),
        undetermined=np.zeros(count, bool),
        offered=np.tile([True, True, False], (count, 1)),
        price=np.tile(np.array([0.0, 2.0, 0.0], np.float32), (count, 1)),
        skill=np.tile(np.array([0.5, 0.7, 0.5], np.float32), (count, 1)),
        confidence=confidence.astype(np.float32), margin=(confidence / 2).astype(np.float32),
        label=np.where(correct, 0, 1), correct=correct,
    )  # fmt: skip


@pytest.fixture(scope="module")
def learnt() -> Weights:
    run = DqnRun(updates=1500, batch=64, learning_rate=3e-3, target_every=50, width=32)
    return qlearning.train(toy(), run, {"encoder": "tiny", "hidden": HIDDEN})


class TestTraining:
    def values(self, learnt: Weights, own: Episodes, row: int, phi: Any) -> Any:
        network = QNetwork(learnt, HIDDEN)
        return network.values(network.state(own.description[row], own.text[row]), phi)

    def after_probe(self, own: Episodes, rows: Any) -> Any:
        """Phi of accepting the probe's answer and of asking the expert: (n, 2, features)."""
        part = own.take(rows)
        known = Known.after_first(part, part.target, np.zeros(len(rows), np.intp), np.random.default_rng(0))
        return ask_features(known)[:, [0, 4]]

    def test_it_asks_the_cheap_probe_of_the_right_task_first(self, learnt):
        own = toy().priced(0.075)
        phi = start_features(own)
        offered = np.tile(own.offered, (1, 3))
        best = [
            np.where(offered[row], self.values(learnt, own, row, phi[row]), -9).argmax() for row in range(100)
        ]
        assert np.mean([b // 3 == own.target[row] for row, b in enumerate(best)]) > 0.97
        assert np.mean([b % 3 == 0 for b in best]) > 0.97

    @pytest.mark.parametrize(("cost_weight", "asks"), [(0.02, True), (0.45, False)])
    def test_it_asks_the_expert_after_an_unsure_probe_where_that_is_worth_its_price(
        self, learnt, cost_weight: float, asks: bool
    ):
        own = toy().priced(cost_weight)
        rows = np.arange(200)
        phi = self.after_probe(own, rows)
        asked = np.array([self.values(learnt, own, row, phi[row]).argmax() == 1 for row in rows])
        unsure = ~own.correct[rows, 0]
        assert asked[~unsure].mean() < 0.03
        assert asked[unsure].mean() == pytest.approx(float(asks), abs=0.05)

    def test_the_values_are_near_what_they_stand_for(self, learnt):
        own = toy().priced(0.1)
        row = int(np.flatnonzero(~own.correct[:, 0])[0])
        accept, ask = self.values(learnt, own, row, self.after_probe(own, np.array([row]))[0])
        assert accept == pytest.approx(0.0, abs=0.1)
        assert ask == pytest.approx(0.98 * 0.7 - 0.2, abs=0.1)

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
        assert read.meta["run"]["updates"] == 1500
        own = toy()
        phi = start_features(own)[0]
        assert self.values(read, own, 0, phi) == pytest.approx(self.values(learnt, own, 0, phi), abs=0.01)
        with pytest.raises(ModelAssetError):
            weights.load(tmp_path, qnetwork.WEIGHTS, encoder="other", hidden=HIDDEN)
        with pytest.raises(ModelAssetError):
            QNetwork(read, HIDDEN + 1)

    def test_the_arrays_compute_what_torch_computes(self):
        torch.manual_seed(0)
        network = Network(HIDDEN, 8)
        ours = QNetwork(Weights(network.arrays(), {}), HIDDEN)
        own = toy(3)
        phi = start_features(own)
        encodings = torch.from_numpy(np.concatenate([own.description, own.text], axis=1))
        theirs = network(encodings, torch.from_numpy(phi)).detach().numpy()
        for row in range(3):
            found = ours.values(ours.state(own.description[row], own.text[row]), phi[row])
            assert found == pytest.approx(theirs[row], abs=1e-5)

    def test_training_goes_on_from_earlier_weights(self, learnt):
        run = DqnRun(updates=1, batch=8, learning_rate=1e-9, width=32)
        went_on = qlearning.train(toy(50), run, {}, start=learnt.arrays)
        for name, array in learnt.arrays.items():
            np.testing.assert_allclose(went_on.arrays[name], array, atol=1e-6)
