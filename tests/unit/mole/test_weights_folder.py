"""The commands that make and judge gating's weights take those in use, as MOLE_GATING_MODEL_DIR says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mole.cli import evaluate_command, train_command


class KnownError(Exception):
    """What was to be done is known."""


def handed(monkeypatch: pytest.MonkeyPatch, function: str, call: Callable[[], Any]) -> Any:
    """What a command hands to the function that does the work, which is not done."""
    found: list[Any] = []

    def note(*given: Any, **_: Any) -> None:
        found.extend(given)
        raise KnownError

    monkeypatch.setattr(function, note)
    with pytest.raises(KnownError):
        call()
    return found


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MOLE_GATING_MODEL_DIR", str(tmp_path / "mine"))
    monkeypatch.setattr(train_command, "encoder_in_use", lambda: None)
    return tmp_path / "mine"


def test_training_writes_into_them(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    work = "moe_router.training"
    run, *_ = handed(monkeypatch, f"{work}.build.build", train_command.gating)
    assert run.output == models
    run, *_ = handed(monkeypatch, f"{work}.build.build", lambda: train_command.gating(output=tmp_path))
    assert run.output == tmp_path
    run, *_ = handed(monkeypatch, f"{work}.probes.fit_probe", lambda: train_command.probe("a/b", tmp_path))
    assert run.output == models / "probes"
    run, *_ = handed(
        monkeypatch, f"{work}.opinion_pools.fit_opinion_pool", lambda: train_command.pool("a/b", tmp_path)
    )
    assert run.probes == models / "probes"


def test_judging_reads_them(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    given, *_ = handed(
        monkeypatch,
        "moe_router.training.experts.evaluate.evaluate_expert",
        lambda: evaluate_command.expert("a/b", tmp_path),
    )
    assert given.probes == models / "probes"
    load = "moe_router.gating.pipeline.GatingPipeline.load"
    _, config = handed(monkeypatch, load, evaluate_command.gating)
    assert config.model_dir == models
    _, config = handed(monkeypatch, load, lambda: evaluate_command.gating(models=tmp_path))
    assert config.model_dir == tmp_path
