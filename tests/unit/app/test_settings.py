from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings

from app.settings import Settings
from expert_worker.settings import Settings as WorkerSettings


def test_defaults() -> None:
    found = Settings()
    assert found.service_mode == "coordinator"
    assert found.registry_file == Path("config/experts_registry.json")
    assert found.mapping_file == Path("config/expert_machine_mapping.json")
    assert found.total_timeout_s == 300
    assert not str(found.cache_dir).startswith("~")


def test_names_of_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_MODE", "monolithic")
    monkeypatch.setenv("REQUEST_TIMEOUT_SECONDS", "10")
    monkeypatch.setenv("EXPERT_MAPPING_PATH", "elsewhere/mapping.json")
    monkeypatch.setenv("MOLE_WORKER_TOKEN", "s3cret")
    monkeypatch.setenv("MOLE_GATING_THREADS", "")  # as Compose passes what is not set
    found = Settings()
    assert (found.service_mode, found.total_timeout_s) == ("monolithic", 25)
    assert found.mapping_file == Path("elsewhere/mapping.json")
    assert found.gating_threads is None
    assert "s3cret" not in repr(found)


def test_a_body_for_one_text_takes_all_that_its_members_can_hold() -> None:
    found = Settings()
    text = "\U0001f600" * found.max_text_chars
    longest = {"text": text, "fields": {"n": text}, "description": text[: found.max_description_chars]}
    assert len(json.dumps(longest)) < found.one_text_bytes < found.max_body_bytes / 6
    assert Settings(max_body_bytes=2000).one_text_bytes == 2000


@pytest.mark.parametrize(
    ("name", "value"),
    [("SERVICE_MODE", "both"), ("REQUEST_TIMEOUT_SECONDS", "0"), ("MOLE_MAX_TEXT_CHARS", "-1")],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("settings", "given"), [(Settings, {}), (WorkerSettings, {"WORKER_MODEL_KEY": "gemma"})]
)
def test_bare_names_of_fields_are_other_services_variables(
    monkeypatch: pytest.MonkeyPatch, settings: type[BaseSettings], given: dict[str, str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = settings()
    aliased = {
        name.upper() for field in settings.model_fields.values() for name in _aliases(field.validation_alias)
    }
    for name in settings.model_fields:
        if name.upper() not in aliased:
            monkeypatch.setenv(name.upper(), "elsewhere")
    assert settings() == before


def _aliases(alias: object) -> list[str]:
    return [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else []
