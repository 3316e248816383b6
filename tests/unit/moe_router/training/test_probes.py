from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from moe_router.errors import ModelAssetError, RequestError
from moe_router.gating.encoder import Encoder
from moe_router.gating.probe import Probe
from moe_router.training.experts.examples import Row
from moe_router.training.probes import ProbeRun, _drawn, fit_probe


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for text, label in rows:
            lines.write(json.dumps({"text": text, "label": label}) + "\n")


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return Encoder(encoder_folder, threads=1)


def test_a_fitted_probe_answers_and_is_bound_to_its_labels(encoder, tmp_path):
    rows = [(f"aaa aaa aaa {i}", "x") for i in range(40)] + [(f"zzz zzz zzz {i}", "y") for i in range(40)]
    write(tmp_path / "train.jsonl.gz", rows)
    write(tmp_path / "validation.jsonl.gz", rows[35:45])
    figures = fit_probe(ProbeRun(tmp_path, "d/t", tmp_path), encoder, lambda _m, _f: None)
    assert figures["texts"] == 5  # the other half chose the temperature
    probe = Probe(tmp_path / "d__t", ("x", "y"), encoder=encoder.identity, hidden=encoder.hidden)
    answer = probe(encoder.encode(["aaa aaa aaa"])[0])
    assert answer.label == "x"
    assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert answer.confidence == max(answer.probabilities.values())
    with pytest.raises(ModelAssetError, match="other labels"):
        Probe(tmp_path / "d__t", ("x", "z"), encoder=encoder.identity, hidden=encoder.hidden)


def test_a_label_that_is_rare_is_drawn_all_the_same(encoder, tmp_path):
    rows = [(f"aaa {i}", "x") for i in range(60)] + [(f"zzz {i}", "y") for i in range(60)] + [("mmm", "rare")]
    write(tmp_path / "train.jsonl.gz", rows)
    write(tmp_path / "validation.jsonl.gz", rows[55:65])
    fit_probe(ProbeRun(tmp_path, "d/t", tmp_path, limit=20), encoder, lambda _m, _f: None)
    labels = ("x", "y", "rare")
    assert Probe(tmp_path / "d__t", labels, encoder=encoder.identity, hidden=encoder.hidden).skill is not None
    assert json.loads((tmp_path / "d__t.json").read_text())["texts"] == 20


BOTH = [("aaa", "x"), ("zzz", "y")] * 4


@pytest.mark.parametrize(
    ("train", "validation", "reason"),
    [
        ([], BOTH, "two labels or more, here are 0 texts of 0"),
        (BOTH[::2], BOTH, "two labels or more, here are 4 texts of 1"),
        (BOTH, [], "has none of the training file's labels: add more"),
        (BOTH, BOTH[:1], "has none of the training"),
        (BOTH, [("mmm", "other")] * 8, "has none of the training"),
    ],
)
def test_data_that_is_too_small_or_odd_is_named_with_its_mend(encoder, tmp_path, train, validation, reason):
    write(tmp_path / "train.jsonl.gz", train)
    write(tmp_path / "validation.jsonl.gz", validation)
    with pytest.raises(RequestError, match=reason):
        fit_probe(ProbeRun(tmp_path, "d/t", tmp_path), encoder, lambda _m, _f: None)
    assert not (tmp_path / "d__t.json").exists()


def test_where_every_label_is_common_the_draw_is_as_before():
    rows = [Row(str(i), "en", "xyz"[i % 3]) for i in range(300)]
    expected = [rows[i] for i in np.random.default_rng(5).permutation(300)[:50]]
    assert _drawn(rows, 50, np.random.default_rng(5)) == expected
