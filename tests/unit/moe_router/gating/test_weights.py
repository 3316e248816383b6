from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moe_router.errors import ModelAssetError
from moe_router.gating.weights import Weights, load, save

META = {"encoder": "tiny@1", "hidden": 4, "note": "für alle"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    arrays = {"a": np.array([[1.5, -2.25]], np.float32), "b": np.zeros((0, 4), np.float32)}
    save(tmp_path / "models", "head", Weights(arrays, META))
    return tmp_path / "models"


def test_a_round_trip(saved: Path) -> None:
    weights = load(saved, "head", encoder="tiny@1", hidden=4)
    assert weights.meta == META
    assert weights.arrays["a"].tolist() == [[1.5, -2.25]]
    assert weights.arrays["a"].dtype == np.float32
    assert weights.arrays["b"].shape == (0, 4)
    assert {path.name for path in saved.iterdir()} == {"head.safetensors", "head.json"}
    assert (saved / "head.safetensors").stat().st_mode & 0o777 == 0o644
    assert "für alle" in (saved / "head.json").read_text(encoding="utf-8")


def test_a_view_is_saved_as_what_it_shows(tmp_path: Path) -> None:
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    save(tmp_path, "head", Weights({"column": whole[:, 1], "turned": whole.T}, META))
    arrays = load(tmp_path, "head", encoder="tiny@1", hidden=4).arrays
    assert arrays["column"].tolist() == [1, 5, 9]
    assert arrays["turned"].tolist() == whole.T.tolist()


@pytest.mark.parametrize("failing", ["save_file", "json.dumps"])
def test_where_writing_fails_the_old_ones_stay(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(f"moe_router.gating.weights.{failing}", full)
    with pytest.raises(OSError, match="no space"):
        save(saved, "head", Weights({"a": np.ones(3, np.float32)}, META | {"note": "new"}))
    monkeypatch.undo()
    weights = load(saved, "head", encoder="tiny@1", hidden=4)
    assert (weights.meta, weights.arrays["a"].tolist()) == (META, [[1.5, -2.25]])
    assert {path.name for path in saved.iterdir()} == {"head.safetensors", "head.json"}


def test_those_for_another_encoder_are_refused(saved: Path) -> None:
    with pytest.raises(ModelAssetError, match="made for the encoder 'tiny@1', but 'tiny@2' is in use"):
        load(saved, "head", encoder="tiny@2", hidden=4)


def test_those_of_other_dimensions_are_refused(saved: Path) -> None:
    with pytest.raises(ModelAssetError, match="expect vectors of 4, the encoder makes 8"):
        load(saved, "head", encoder="tiny@1", hidden=8)


@pytest.mark.parametrize("name", ["head.safetensors", "head.json"])
def test_a_missing_or_damaged_file_is_refused(saved: Path, name: str) -> None:
    (saved / name).write_bytes(b"\xff\xfe rubbish")
    with pytest.raises(ModelAssetError, match=r"head\.safetensors cannot be read"):
        load(saved, "head", encoder="tiny@1", hidden=4)
    (saved / name).unlink()
    with pytest.raises(ModelAssetError, match=r"head\.safetensors cannot be read"):
        load(saved, "head", encoder="tiny@1", hidden=4)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    whole = (saved / "head.safetensors").read_bytes()
    for end in (0, 7, len(whole) // 2, len(whole) - 1):
        (saved / "head.safetensors").write_bytes(whole[:end])
        with pytest.raises(ModelAssetError):
            load(saved, "head", encoder="tiny@1", hidden=4)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_is_refused(saved: Path, odd: float) -> None:
    arrays = load_file(saved / "head.safetensors")
    name = sorted(arrays)[0]
    arrays[name] = np.full_like(arrays[name], odd, dtype=np.float32)
    save_file(arrays, saved / "head.safetensors")
    with pytest.raises(ModelAssetError, match=f"damaged: '{name}'"):
        load(saved, "head", encoder="tiny@1", hidden=4)


@pytest.mark.parametrize("meta", [[], None, 3, {}])
def test_a_description_of_another_form_is_refused(saved: Path, meta: object) -> None:
    (saved / "head.json").write_text(json.dumps(meta))
    with pytest.raises(ModelAssetError, match=r"head"):
        load(saved, "head", encoder="tiny@1", hidden=4)
