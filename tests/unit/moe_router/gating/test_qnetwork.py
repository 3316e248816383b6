from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.qnetwork import FEATURES, ActionFeatures, QNetwork
from moe_router.gating.weights import Floats, Weights
from tests.unit.moe_router.gating.made import q_weights

HIDDEN, WIDTH, SECOND = 12, 8, 5
SHAPES = {
    "encoding.weight": (WIDTH, 2 * HIDDEN), "action.weight": (WIDTH, len(FEATURES)), "1.bias": (WIDTH,),
    "2.weight": (SECOND, WIDTH), "2.bias": (SECOND,), "3.weight": (1, SECOND), "3.bias": (1,),
}  # fmt: skip


def random_weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights({name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}, {})


def formula(weights: Weights, description: Floats, text: Floats, phi: Floats) -> Floats:
    """Q(s, a) = w3 · relu(W2 relu(We [d, t] + Wa phi(s, a) + b1) + b2) + b3, in torch."""
    t = {name: torch.from_numpy(array) for name, array in weights.arrays.items()}
    encodings = torch.from_numpy(np.concatenate([description, text]))
    rows = []
    for row in torch.from_numpy(phi):
        first = torch.relu(t["encoding.weight"] @ encodings + t["action.weight"] @ row + t["1.bias"])
        second = torch.relu(t["2.weight"] @ first + t["2.bias"])
        rows.append(t["3.weight"][0] @ second + t["3.bias"][0])
    return torch.stack(rows).numpy()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), actions=st.integers(1, 6), described=st.booleans(), read=st.booleans())
def test_it_is_the_formula(seed: int, actions: int, described: bool, read: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = random_weights(seed)
    description, text = (rng.normal(size=HIDDEN).astype(np.float32) for _ in range(2))
    phi = rng.random((actions, len(FEATURES))).astype(np.float32)
    network = QNetwork(weights, HIDDEN)
    state = network.state(description if described else None, text if read else None)
    zero = np.zeros(HIDDEN, np.float32)
    expected = formula(weights, description if described else zero, text if read else zero, phi)
    assert network.values(state, phi) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_an_action_s_value_does_not_depend_on_the_others() -> None:
    network = QNetwork(random_weights(1), HIDDEN)
    phi = np.random.default_rng(2).random((5, len(FEATURES))).astype(np.float32)
    state = network.state(None, None)
    alone = [network.values(state, row[None])[0] for row in phi]
    assert network.values(state, phi) == pytest.approx(alone, rel=1e-5)


def test_a_state_leaves_the_weights_as_they_are() -> None:
    weights = random_weights(1)
    network = QNetwork(weights, HIDDEN)
    before = weights.arrays["1.bias"].copy()
    network.state(np.ones(HIDDEN, np.float32), np.ones(HIDDEN, np.float32))
    assert (weights.arrays["1.bias"] == before).all()


def test_features_have_one_order() -> None:
    described = ActionFeatures(**{name: float(index) for index, name in enumerate(FEATURES)})
    assert described.vector().tolist() == list(range(len(FEATURES)))
    assert described.vector().dtype == np.float32


@pytest.mark.parametrize("lacking", SHAPES)
def test_weights_that_lack_an_array_are_refused(lacking: str) -> None:
    arrays = {name: array for name, array in random_weights(0).arrays.items() if name != lacking}
    with pytest.raises(ModelAssetError, match=f"lack '{lacking}'"):
        QNetwork(Weights(arrays, {}), HIDDEN)


@pytest.mark.parametrize("name", SHAPES)
def test_weights_of_other_dimensions_are_refused(name: str) -> None:
    arrays = dict(random_weights(0).arrays)
    arrays[name] = np.concatenate([arrays[name], arrays[name]], axis=-1)
    with pytest.raises(ModelAssetError, match="other dimensions"):
        QNetwork(Weights(arrays, {}), HIDDEN)
    with pytest.raises(ModelAssetError, match="other dimensions"):
        QNetwork(random_weights(0), HIDDEN + 1)


def test_weights_for_other_features_are_refused() -> None:
    turned = [*FEATURES[1:], FEATURES[0]]
    with pytest.raises(ModelAssetError, match="mole train gating"):
        QNetwork(q_weights(hidden=HIDDEN, meta={"features": turned}), HIDDEN)
