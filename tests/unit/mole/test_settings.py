"""What the command takes from the environment, and what it leaves there."""

from __future__ import annotations

import pytest

from mole.settings import CommandSettings


@pytest.mark.parametrize(
    "name", ["URL", "API_KEY", "CACHE_DIR", "REGISTRY_PATH", "MAPPING_PATH", "ADAPTER_ROOT", "ENCODER"]
)
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_names_that_may_be_another_services_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str, case):
    plain = CommandSettings()
    monkeypatch.setenv(case(name), "theirs")
    assert CommandSettings() == plain


def test_our_own_names_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOLE_URL", "http://mine")
    monkeypatch.setenv("EXPERT_MAPPING_PATH", "fleet.json")
    assert CommandSettings().url == "http://mine"
    assert str(CommandSettings().mapping_file) == "fleet.json"
