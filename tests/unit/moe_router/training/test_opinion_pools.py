from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moe_router.errors import RequestError
from moe_router.experts.model_host import PoolConfig
from moe_router.gating.encoder import Encoder
from moe_router.gating.probe import Probe
from moe_router.training.opinion_pools import PoolRun, fit, fit_opinion_pool
from moe_router.training.probes import ProbeRun, fit_probe
from tests.unit.moe_router.training import expert_fixtures as fixtures

LABELS = ("a", "b", "c")


def opinions(gold: np.ndarray, strength: float, rng: np.random.Generator) -> list[dict[str, float]]:
    """What somebody thinks of each text: noise, and so much of the truth."""
    logits = rng.normal(size=(len(gold), 3)) + strength * np.eye(3)[gold]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [dict(zip(LABELS, row, strict=True)) for row in p.tolist()]


def loss(tables: list[dict[str, float]], gold: list[str]) -> float:
    return float(-np.mean([np.log(table[label]) for table, label in zip(tables, gold, strict=True)]))


@pytest.fixture
def gold() -> np.ndarray:
    return np.random.default_rng(1).integers(3, size=4000)


def test_two_that_err_apart_are_better_together(gold):
    rng = np.random.default_rng(0)
    probe, expert = opinions(gold, 1.0, rng), opinions(gold, 1.5, rng)
    right = [LABELS[i] for i in gold]
    pool = fit(probe, expert, right)
    # Of unit Gaussian noise and s times the truth, the likelihood is softmax(s logits).
    assert [pool.probe, pool.expert] == pytest.approx([1.0, 1.5], abs=0.1)
    both = [pool(a, b) for a, b in zip(probe, expert, strict=True)]
    assert loss(both, right) < min(loss(probe, right), loss(expert, right)) - 0.1


def test_an_opinion_that_knows_nothing_weighs_nothing(gold):
    rng = np.random.default_rng(0)
    pool = fit(opinions(gold, 0.0, rng), opinions(gold, 1.0, rng), [LABELS[i] for i in gold])
    assert pool.probe == pytest.approx(0.0, abs=0.08)


def test_few_texts_prove_no_boundless_certainty():
    sure = [{"a": 0.9, "b": 0.1}] * 3
    pool = fit(sure, sure, ["a"] * 3)
    assert pool.probe <= 5.0
    assert pool.expert <= 5.0


@pytest.fixture
def run(tmp_path: Path, gemma_folder: Path) -> PoolRun:
    rows = fixtures.rows(24)
    data = fixtures.write(tmp_path / "data", rows, rows)
    experts = PoolConfig(adapter_root=tmp_path, cache_dir=tmp_path, worker_id="training")
    return PoolRun("bank/intent", data, tmp_path / "probes", "tiny", experts)


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return Encoder(encoder_folder, threads=1)


def test_the_probe_is_told_of_the_pool_once(run, encoder, gemma_folder):
    known = fixtures.registry(gemma_folder)
    fit_probe(ProbeRun(run.data, run.task, run.probes), encoder, lambda _m, _f: None)
    for _ in range(2):
        figures = fit_opinion_pool(run, known, encoder, lambda _m, _f: None)
    assert set(figures) == {"probe", "expert", "both"}
    assert {figures[way]["texts"] for way in figures} == {12}
    (entry,) = json.loads((run.probes / "bank__intent.json").read_text(encoding="utf-8"))["pools"]
    assert (entry["model_key"], entry["name"]) == ("tiny", "tiny")
    assert entry["validation"] == {k: v for k, v in figures["both"].items() if k != "languages"}
    probe = Probe(
        run.probes / "bank__intent", fixtures.LABELS, encoder=encoder.identity, hidden=encoder.hidden
    )
    answer = probe(encoder.encode(["where is it"])[0])
    assert answer.pools["tiny", "tiny"].probe == entry["probe"]


def test_labels_that_the_task_does_not_have_fit_nothing(run, encoder, gemma_folder):
    rows = [replace(row, label="another") for row in fixtures.rows(4)]
    fit_probe(ProbeRun(run.data, run.task, run.probes), encoder, lambda _m, _f: None)
    data = fixtures.write(run.probes, rows, rows)
    with pytest.raises(RequestError, match="has no text of"):
        fit_opinion_pool(
            replace(run, data=data), fixtures.registry(gemma_folder), encoder, lambda _m, _f: None
        )


@pytest.mark.parametrize("name", ["tiny", "another"])
def test_the_expert_may_be_named(run, encoder, gemma_folder, name):
    fit_probe(ProbeRun(run.data, run.task, run.probes), encoder, lambda _m, _f: None)
    known, named = fixtures.registry(gemma_folder), replace(run, expert=name)
    if name == "tiny":
        assert "both" in fit_opinion_pool(named, known, encoder, lambda _m, _f: None)
    else:
        with pytest.raises(RequestError, match="no expert named another on tiny"):
            fit_opinion_pool(named, known, encoder, lambda _m, _f: None)


def test_a_base_model_without_an_expert_of_the_task_is_refused(run, encoder, gemma_folder):
    other = PoolRun(run.task, run.data, run.probes, "another", run.experts)
    with pytest.raises(RequestError, match="no expert on another"):
        fit_opinion_pool(other, fixtures.registry(gemma_folder), encoder, lambda _m, _f: None)
