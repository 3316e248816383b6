"""What the doctor reads off the machine."""

from __future__ import annotations

import socket
from pathlib import Path

from mole.doctor import cached_models, cores, examine, memory_gib, missing, port_is_free


def test_finished_models_are_listed_and_unfinished_are_not(tmp_path: Path):
    for folder, mark in (
        ("encoders/e5", "encoder.json"),
        ("gemma", "config.json"),
        (".gemma-abc", "config.json"),
        ("encoders/.e5-x", "encoder.json"),
        ("logs", "demo-worker.log"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / mark).touch()
    assert cached_models(tmp_path) == ["encoders/e5", "gemma"]


def test_missing_modules():
    assert missing(("json", "no_such_module_at_all")) == ["no_such_module_at_all"]


def test_machine():
    memory = memory_gib()
    assert cores() >= 1
    assert memory is None or memory > 0
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])


def test_the_diagnosis_has_a_reason_for_each_no(tmp_path: Path):
    diagnosis = examine(tmp_path / "cache")
    assert all(verdict.possible or verdict.reason for verdict in diagnosis.can_run.values())
    assert diagnosis.as_dict()["facts"] == diagnosis.facts
