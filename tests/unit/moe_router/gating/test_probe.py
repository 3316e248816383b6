from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moe_router.contracts import ExpertAnswer
from moe_router.errors import ModelAssetError
from moe_router.gating.probe import Probe
from moe_router.gating.weights import Weights, save
from moe_router.registry import Expert
from tests.unit.moe_router.gating.made import HIDDEN, axis

LABELS = ("no", "yes", "maybe")


def write(folder: Path, *, temperature: float = 1.0, **changed: object) -> Path:
    arrays = {"weight": np.stack([axis(i) for i in range(3)]) * 4, "bias": np.zeros(3, np.float32)}
    meta = {"encoder": "tiny", "hidden": HIDDEN, "labels": list(LABELS), "temperature": temperature}
    arrays |= {key: value for key, value in changed.items() if key in arrays}
    meta |= {key: value for key, value in changed.items() if key not in arrays}
    kept = {name: array for name, array in arrays.items() if array is not None}
    save(folder, "own", Weights(kept, {k: v for k, v in meta.items() if v is not None}))
    return folder / "own"


def load(path: Path, labels: tuple[str, ...] = LABELS) -> Probe:
    return Probe(path, labels, encoder="tiny", hidden=HIDDEN)


def test_the_best_label_its_probability_and_its_lead(tmp_path):
    answer = load(write(tmp_path))(axis(1))
    assert answer.label == "yes"
    assert list(answer.probabilities) == list(LABELS)
    assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-6)
    assert answer.confidence == answer.probabilities["yes"] == pytest.approx(np.exp(4) / (np.exp(4) + 2))
    assert answer.margin == pytest.approx(answer.confidence - answer.probabilities["no"])


def test_the_temperature_calibrates(tmp_path):
    sure, unsure = (load(write(tmp_path / str(t), temperature=t))(axis(1)) for t in (0.5, 4.0))
    assert sure.label == unsure.label
    assert sure.confidence > 0.99 > 0.6 > unsure.confidence


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_makes_no_probabilities_is_refused(tmp_path, temperature):
    with pytest.raises(ModelAssetError, match="the temperature"):
        load(write(tmp_path, temperature=temperature))


def test_one_label_leaves_no_lead(tmp_path):
    path = write(tmp_path, weight=axis(0)[None], bias=np.zeros(1, np.float32), labels=["all"])
    answer = load(path, ("all",))(axis(3))
    assert (answer.label, answer.confidence, answer.margin) == ("all", 1.0, 1.0)


def test_the_registry_may_list_the_labels_in_another_order(tmp_path):
    assert load(write(tmp_path), ("maybe", "no", "yes"))(axis(2)).label == "maybe"


@pytest.mark.parametrize("labels", [("no", "yes"), ("no", "yes", "perhaps"), (*LABELS, "never"), ()])
def test_a_probe_for_other_labels_is_refused(tmp_path, labels):
    with pytest.raises(ModelAssetError, match="other labels"):
        load(write(tmp_path), labels)


@pytest.mark.parametrize("lacking", ["weight", "bias", "labels", "temperature"])
def test_a_probe_that_lacks_something_is_refused(tmp_path, lacking):
    with pytest.raises(ModelAssetError, match=f"lacks '{lacking}'"):
        load(write(tmp_path, **{lacking: None}))


@pytest.mark.parametrize(
    ("name", "array"),
    [("weight", np.zeros((3, HIDDEN + 1))), ("weight", np.zeros((2, HIDDEN))), ("bias", np.zeros(2))],
)
def test_a_probe_of_other_dimensions_is_refused(tmp_path, name, array):
    with pytest.raises(ModelAssetError, match="other dimensions"):
        load(write(tmp_path, **{name: array}))


def test_a_probe_for_another_encoder_is_refused(tmp_path):
    with pytest.raises(ModelAssetError, match="made for the encoder 'other'"):
        load(write(tmp_path, encoder="other"))
    with pytest.raises(ModelAssetError, match="cannot be read"):
        load(tmp_path / "gone")


POOL = {"model_key": "m", "name": "e", "probe": 1.0, "expert": 1.0}


def expert(name: str = "e", model_key: str = "m") -> Expert:
    return Expert(name, "d/t", model_key, "own", None, None, None, 1.0)


def said(result: str = "no", **probabilities: float) -> ExpertAnswer:
    return ExpertAnswer(
        result=result, confidence=probabilities.get(result, 0.5), worker_id="w", model_key="m",
        adapter_name="own", processing_time_ms=1.0, probabilities=probabilities or None,
    )  # fmt: skip


def test_an_expert_is_heard_together_with_the_probe(tmp_path):
    answer = load(write(tmp_path, pools=[POOL]))(axis(1))  # all but sure of "yes"
    heard = answer.heard_with(expert(), said(no=0.5, yes=0.4, maybe=0.1))
    assert heard.result == "yes"
    assert heard.confidence == max((heard.probabilities or {}).values()) > answer.confidence
    assert (heard.worker_id, heard.model_key) == ("w", "m")
    assert (
        load(write(tmp_path, pools=[POOL]))(axis(0)).heard_with(expert(), said(no=0.9, yes=0.1)).result
        == "no"
    )


@pytest.mark.parametrize(
    ("by", "answer"),
    [
        (expert("another"), said(no=0.5, yes=0.5)),
        (expert(model_key="n"), said(no=0.5, yes=0.5)),
        (expert(), said()),
        (expert(), said("a label of its own", no=0.5, yes=0.5)),
    ],
)
def test_where_no_pool_was_fitted_or_nothing_can_be_pooled_the_expert_is_taken_at_its_word(
    tmp_path, by, answer
):
    assert load(write(tmp_path, pools=[POOL]))(axis(1)).heard_with(by, answer) == answer


@pytest.mark.parametrize(
    "entry", [{}, POOL | {"probe": -1.0}, POOL | {"expert": float("nan")}, POOL | {"probe": "much"}, "pool"]
)
def test_a_damaged_pool_is_refused(tmp_path, entry):
    with pytest.raises(ModelAssetError, match="lacks"):
        load(write(tmp_path, pools=[entry]))
