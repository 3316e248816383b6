from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.ngrams import BUCKETS, IDENTITY, NgramModel, buckets
from moe_router.gating.weights import Weights, save


def write(folder: Path, **changed: object) -> Path:
    weight, bias = np.zeros((BUCKETS, 2), np.float32), np.zeros(2, np.float32)
    weight[buckets("abc"), 0], weight[buckets("xyz"), 1] = 4.0, 4.0
    arrays = {"weight": weight, "bias": bias, **{k: v for k, v in changed.items() if k in ("weight", "bias")}}
    meta = {"encoder": IDENTITY, "hidden": BUCKETS, "languages": ["de", "fr"], "temperature": 1.0}
    meta |= {key: value for key, value in changed.items() if key not in arrays}
    kept = {name: array for name, array in arrays.items() if array is not None}
    save(folder, "language", Weights(kept, {k: v for k, v in meta.items() if v is not None}))
    return folder


def test_the_known_language_wins_by_its_n_grams(tmp_path):
    model = NgramModel(write(tmp_path))
    language, share, familiarity = model.best("  ABC \n abc")
    assert language == "de"
    assert share > 0.9
    assert familiarity > 2
    assert model.best("xyz")[0] == "fr"
    assert model.best("我")[2] < familiarity  # foreign n-grams have no weights


@settings(deadline=None)
@given(st.text(st.characters()))
def test_every_text_has_buckets(text):
    found = buckets(text)
    assert len(found) > 0
    assert ((found >= 0) & (found < BUCKETS)).all()
    assert (buckets(f"\n{text.upper().lower()} ") == buckets(text.upper().lower())).all()


@pytest.mark.parametrize("lacking", ["weight", "bias", "languages", "temperature"])
def test_weights_that_lack_something_are_refused(tmp_path, lacking):
    with pytest.raises(ModelAssetError, match=lacking):
        NgramModel(write(tmp_path, **{lacking: None}))


def test_weights_of_other_dimensions_or_features_are_refused(tmp_path):
    with pytest.raises(ModelAssetError, match="other dimensions"):
        NgramModel(write(tmp_path / "a", bias=np.zeros(3, np.float32)))
    with pytest.raises(ModelAssetError, match="made for the encoder"):
        NgramModel(write(tmp_path / "b", encoder="character n-grams (1, 2)"))
    with pytest.raises(ModelAssetError, match="cannot be read"):
        NgramModel(tmp_path)
