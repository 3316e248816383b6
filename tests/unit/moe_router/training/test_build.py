"""Training from the project's own data to weights that gating loads, on a tiny random encoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from moe_router.gating.encoder import Encoder
from moe_router.gating.pipeline import GatingConfig, GatingPipeline
from moe_router.registry import Registry, load_registry
from moe_router.training import build, qlearning, requests, simulation
from moe_router.training.build import GatingRun
from moe_router.training.embedded import Embedded
from moe_router.training.phrasings import load_phrasings

ROOT = Path(__file__).parents[4]
LEFT_OUT = "social/hate_speech"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(ROOT / "config" / "demo" / "experts_registry.json")


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return Encoder(encoder_folder, threads=1, max_tokens=32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, registry: Registry, encoder: Encoder) -> Path:
    few = tuple(p for p in load_phrasings() if p.language in ("en", "de"))
    output = tmp_path_factory.mktemp("weights")
    told: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_phrasings", lambda: few)
        patch.setattr(requests, "load_phrasings", lambda: few)
        patch.setattr(build.qlearning, "DqnRun", partial(qlearning.DqnRun, updates=20, batch=32))
        run = GatingRun(data=None, output=output, without=frozenset({LEFT_OUT}))
        figures = build.build(run, registry, encoder, lambda _, done: told.append(done))
    assert told[-1] == 1.0
    assert set(figures) >= {"temperature", "coverage_risk"}
    return output


async def test_gating_loads_what_was_built(built, registry, encoder, encoder_folder, tmp_path):
    config = GatingConfig(cache_dir=tmp_path, model_dir=built, encoder=str(encoder_folder), threads=1)
    gating = GatingPipeline.load(registry, config)
    known = next(p for p in load_phrasings() if p.target == "finance/intent_detection" and p.language == "en")
    found = await gating.decide("My card is lost.", known.text, served=lambda _: True)
    assert found.language == "en"
    assert sum(found.task_probabilities.values()) == pytest.approx(1.0, abs=1e-4)
    await gating.aclose()


def test_a_task_left_out_has_no_weights_but_may_be_routed_by_its_phrasings(built, registry, encoder):
    from moe_router.gating import task_router
    from moe_router.gating.weights import load

    weights = load(built, task_router.WEIGHTS, encoder=encoder.identity, hidden=encoder.hidden)
    assert set(weights.meta["classes"]) == set(registry.tasks) - {LEFT_OUT}
    assert weights.meta["coverage_risk"]
    assert set(weights.meta["data"]["licences"]) == set(build.LICENCES)


def test_texts_are_encoded_once(encoder):
    calls: list[int] = []

    class Counting(Encoder):
        def __init__(self) -> None:
            pass

        hidden = encoder.hidden  # type: ignore[assignment]

        def encode(self, texts):
            calls.append(len(texts))
            return encoder.encode(texts)

    embed = Embedded(Counting(), lambda *_: None)
    first = embed(["a", "b", "a"])
    assert (first[0] == first[2]).all()
    assert (embed(["b", "c"])[0] == first[1]).all()
    assert calls == [2, 1]
    assert embed([]).shape == (0, encoder.hidden)


def test_episodes_are_what_gating_says_of_the_requests(built, registry, encoder):
    from moe_router.gating import domain, task_router
    from moe_router.gating.weights import load

    domains, tasks = (
        load(built, name, encoder=encoder.identity, hidden=encoder.hidden)
        for name in (domain.WEIGHTS, task_router.WEIGHTS)
    )
    embed = Embedded(encoder, lambda *_: None)
    heads = build.make_heads(registry, domains, tasks, embed)
    own = requests.Composer(requests.load_texts(None, "train", 9, 0), "train", 0).epoch(20)[-60:]
    episodes = simulation.simulate(own, registry, heads, None, embed, seed=0)
    names = tuple(registry.tasks)
    assert episodes.target.tolist() == [names.index(r.target) if r.target in names else -1 for r in own]
    named = episodes.task_probability.max(axis=1) == 1.0
    assert 2 < named.sum() < 25  # a quarter of those that some task serves
    assert not episodes.description[named].any()
    assert (episodes.none_probability[named] == 0.0).all()
    for row in np.flatnonzero(named):
        assert episodes.task_probability[row, episodes.target[row]] == 1.0
        assert episodes.domain_probability[row, episodes.target[row]] == 1.0
    for row in np.flatnonzero(~named):
        request = own[row]
        description, text = simulation.vectors_of(request, embed)
        found = heads[1](description, text)
        np.testing.assert_allclose(episodes.task_probability[row], found.probabilities, atol=1e-6)
        assert episodes.none_probability[row] == pytest.approx(found.none, abs=1e-6)
        assert episodes.description[row].any() == (request.description is not None)
        assert episodes.text[row].any() == (request.text is not None)
    assert episodes.undetermined.sum() < 12  # one in twenty of 60
    assert (episodes.language_probability[episodes.undetermined] < 0.5).all()
    assert episodes.offered.any(axis=1).all()
    assert (episodes.price[:, 0] < episodes.price[:, 1]).all()
