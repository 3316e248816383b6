from __future__ import annotations

import numpy as np
import pytest

from moe_router.gating.heads import MixtureHead, softmax, unit
from moe_router.gating.weights import Floats
from moe_router.training.gating import (
    Part,
    coverage_risk,
    fit_head,
    fit_linear,
    fit_none,
    fit_temperature,
    index_of,
    log_sum_exp,
)
from moe_router.training.phrasings import Phrasing
from moe_router.training.requests import Text

HIDDEN = 24
FINANCE, SOCIAL, INTENT = (
    "finance/sentiment_analysis",
    "social/sentiment_analysis",
    "finance/intent_detection",
)
TASKS = (FINANCE, SOCIAL, INTENT)
TARGETS = (*TASKS, "generic/sentiment", "oos/cooking", "oos/travel", "oos/coding")


def around(index: int, count: int, rng: np.random.Generator, noise: float = 0.12) -> Floats:
    centre = np.eye(HIDDEN)[index] + 0.5  # as encoders' vectors, all point the same way to begin with
    return unit((centre + rng.normal(0, noise, (count, HIDDEN))).astype(np.float32))


def part(seed: int, each: int = 40) -> Part:
    rng = np.random.default_rng(seed)
    phrasings = [
        Phrasing(f"{t}{i}", t, t, "order", "en" if i % 2 else "de", f"{t} {i}", "train")
        for t in TARGETS
        for i in range(each)
    ]
    vectors = np.concatenate([around(index, each, rng) for index in range(len(TARGETS))])
    texts = [Text(f"{t} {i}", t, "en") for t in TASKS for i in range(each)]
    text_vectors = np.concatenate([around(10 + index, each, rng) for index in range(len(TASKS))])
    return Part(phrasings, vectors, texts, text_vectors)


@pytest.fixture(scope="module")
def head() -> MixtureHead:
    weights = fit_head(part(0), part(1), lambda task: task, {"encoder": "tiny", "hidden": HIDDEN})
    assert weights.meta["classes"] == sorted(TASKS)
    assert weights.meta["encoder"] == "tiny"
    return MixtureHead(weights, TASKS, {})


class TestFittedHead:
    def test_descriptions_it_has_not_seen_go_where_they_belong(self, head):
        held = part(2)
        for target in TASKS:
            own = [
                v for p, v in zip(held.phrasings, held.phrasing_vectors, strict=True) if p.target == target
            ]
            found = [head(vector, None) for vector in own]
            assert np.mean([f.names[int(f.probabilities.argmax())] == target for f in found]) > 0.95

    def test_out_of_scope_requests_are_none(self, head):
        held = part(2)
        own = [v for p, v in zip(held.phrasings, held.phrasing_vectors, strict=True) if "oos" in p.target]
        assert np.mean([head(vector, held.text_vectors[0]).none > 0.5 for vector in own]) > 0.95

    def test_open_requests_are_for_the_text_to_decide(self, head):
        held = part(2)
        rows = [i for i, p in enumerate(held.phrasings) if p.target == "generic/sentiment"]
        for text, vector in zip(held.texts, held.text_vectors, strict=True):
            if text.task != INTENT:
                found = head(held.phrasing_vectors[rows[0]], vector).as_dict()
                assert max(found, key=lambda name: found[name]) == text.task

    def test_a_text_alone_is_read(self, head):
        held = part(2)
        found = [head(None, vector) for vector in held.text_vectors]
        named = [f.names[int(f.probabilities.argmax())] for f in found]
        assert np.mean([n == t.task for n, t in zip(named, held.texts, strict=True)]) > 0.95

    def test_a_new_task_is_found_by_its_prototype(self):
        weights = fit_head(part(0), part(1), lambda task: task, {})
        rng = np.random.default_rng(9)
        own = MixtureHead(weights, (*TASKS, "c/new"), {"c/new": around(20, 4, rng)})
        found = [own(vector, None) for vector in around(20, 20, rng)]
        assert np.mean([f.names[int(f.probabilities.argmax())] == "c/new" for f in found]) > 0.9
        known = [own(vector, None).as_dict()["c/new"] for vector in around(0, 20, rng)]
        assert np.mean(known) < 0.3

    def test_domains_are_fitted_by_the_same_code(self):
        weights = fit_head(part(0), part(1), lambda task: task.split("/")[0], {})
        assert weights.meta["classes"] == ["finance", "social"]
        assert weights.meta["opens"] == {"generic/sentiment": {"finance": "finance", "social": "social"}}
        own = MixtureHead(weights, ("finance", "social"), {})
        rng = np.random.default_rng(3)
        assert own(around(2, 1, rng)[0], None).as_dict()["finance"] > 0.8
        assert own(around(1, 1, rng)[0], None).as_dict()["social"] > 0.8


class TestLinear:
    @pytest.mark.parametrize("classes", [2, 3, 5])
    def test_it_separates_what_can_be_separated(self, classes):
        rng = np.random.default_rng(0)
        names = [f"c{i}" for i in range(classes)]
        vectors = np.concatenate([around(i, 30, rng) for i in range(classes)])
        gold = np.repeat(names, 30)
        weight, bias = fit_linear(vectors, gold, names[::-1], 1.0)
        found = np.array(names[::-1])[(vectors @ weight.T + bias).argmax(1)]
        assert (found == gold).mean() > 0.97

    @pytest.mark.parametrize("classes", [2, 3])
    def test_its_probabilities_are_scikit_learn_s(self, classes):
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(1)
        vectors = rng.normal(2, 3, (200, 6)).astype(np.float32)
        gold = np.array([f"c{i}" for i in rng.integers(0, classes, 200)])
        weight, bias = fit_linear(vectors, gold, [f"c{i}" for i in range(classes)], 2.0)
        mean, deviation = vectors.mean(0), vectors.std(0) + 1e-6
        model = LogisticRegression(C=1 / (2.0 * 0.2 * 10), max_iter=300).fit(
            (vectors - mean) / deviation, gold
        )
        expected = model.predict_proba((vectors - mean) / deviation)
        assert softmax(vectors @ weight.T + bias) == pytest.approx(expected, abs=1e-3)

    def test_a_class_without_data_is_never_chosen(self):
        rng = np.random.default_rng(0)
        vectors = np.concatenate([around(i, 20, rng) for i in range(3)])
        gold = np.repeat(["a", "b", "d"], 20)
        weight, bias = fit_linear(vectors, gold, ["a", "b", "c", "d"], 1.0)
        assert bias[2] == -30
        assert softmax(vectors @ weight.T + bias)[:, 2].max() < 1e-6


class TestCalibration:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_the_temperature_is_found_again(self, temperature):
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 4, (6000, 4)).astype(np.float32)
        p = softmax(logits / np.float32(temperature))
        gold = (p.cumsum(1) > rng.random((6000, 1))).argmax(1)
        assert fit_temperature(logits, gold) == pytest.approx(temperature, rel=0.1)

    def test_coverage_and_risk_by_hand(self):
        confidence = np.array([0.15, 0.35, 0.55, 0.95], np.float32)
        correct = np.array([False, False, True, True])
        rows = {row["threshold"]: row for row in coverage_risk(confidence, correct)}
        assert rows[0.1] == {"threshold": 0.1, "coverage": 1.0, "risk": 0.5}
        assert rows[0.3] == {"threshold": 0.3, "coverage": 0.75, "risk": 0.3333}
        assert rows[0.94] == {"threshold": 0.94, "coverage": 0.25, "risk": 0.0}
        assert max(rows) < 0.95  # where nothing is answered there is no risk to tell

    def test_log_sum_exp_does_not_overflow(self):
        rows = np.array([[1e4, 1e4], [-1e4, -1e4], [0.0, 0.0]], np.float32)
        assert log_sum_exp(rows) == pytest.approx(rows[:, 0] + np.log(2))

    def test_an_unknown_name_has_no_column(self):
        assert index_of(np.array(["b", "a"]), ["a", "b"]).tolist() == [1, 0]
        with pytest.raises(KeyError):
            index_of(np.array(["c"]), ["a", "b"])


def test_the_bias_of_none_makes_up_for_kinds_that_training_has_not_seen():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 3000)
    logits = rng.normal(scale=0.5, size=(3000, 3)).astype(np.float32)
    logits[np.arange(3000), gold] += 2
    logits[:, 2] -= 1.5  # "none" is told too seldom
    bias, temperature = fit_none(logits, gold, 2)
    assert bias == pytest.approx(1.5, abs=0.3)
    assert 0.1 < temperature < 2
    assert fit_none(logits + np.array([0, 0, 1.5], np.float32), gold, 2)[0] == pytest.approx(0.0, abs=0.3)
