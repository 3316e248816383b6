"""Every setting reaches its container, or the image, a mount or the file itself says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic_settings import BaseSettings

from app.settings import Settings as CoordinatorSettings
from expert_worker.settings import Settings as WorkerSettings
from scripts.settings_table import variable

ROOT = Path(__file__).resolve().parents[3]
PLACES = {
    "CONFIG_PATH",
    "EXPERT_REGISTRY_PATH",
    "EXPERT_MAPPING_PATH",
    "ADAPTER_PATH",
    "MOLE_CACHE_DIR",
    "HF_CACHE_PATH",
}
"""Folders of the image, on which volumes are mounted."""
FIXED = PLACES | {
    "MOLE_GATING_MODEL_DIR", "MOLE_LID_PATH", "MOLE_STATE_DIR",
    # `stop_grace_period` would have to be changed with it.
    "MOLE_DRAIN_TIMEOUT_SECONDS",
}  # fmt: skip
OF_EXPERTS = {
    "MOLE_NUM_THREADS", "MOLE_MEMORY_BUDGET_MIB", "MAX_CONCURRENT_GPU_REQUESTS", "MOLE_ENGINE_API_KEY",
    "MOLE_MAX_BATCH_TOKENS", "MOLE_MAX_QUEUE", "MOLE_REQUIRE_4BIT",
}  # fmt: skip
OF_THE_FLEET = {
    "MOLE_WORKER_TOKEN", "MOLE_HEDGE_AFTER_SECONDS", "MOLE_CONNECT_TIMEOUT_SECONDS",
    "MOLE_PROBE_INTERVAL_SECONDS", "MOLE_EJECT_AFTER_ERRORS", "MOLE_EJECT_SECONDS",
    "MOLE_MAX_IN_FLIGHT_PER_WORKER", "MOLE_MAX_WAITING_PER_MODEL",
}  # fmt: skip
NO_SETTINGS = {"HF_TOKEN", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}
"""Read by libraries."""
SERVICES: list[tuple[str, str, type[BaseSettings], set[str]]] = [
    ("docker-compose-distributed.yml", "coordinator", CoordinatorSettings, FIXED | OF_EXPERTS),
    ("docker-compose-distributed.yml", "expert-worker-0", WorkerSettings, FIXED),
    ("docker-compose-worker.yml", "expert-worker", WorkerSettings, FIXED),
    ("docker-compose.yml", "coordinator", CoordinatorSettings, FIXED | OF_THE_FLEET),
]


def environment(file: str, service: str) -> dict[str, str]:
    content = yaml.safe_load((ROOT / "docker" / file).read_text())
    pairs = content["services"][service]["environment"]
    found = dict(pair.split("=", 1) for pair in pairs)
    assert len(found) == len(pairs), "one is there twice"
    return found


def variables(settings: type[BaseSettings]) -> set[str]:
    return {variable(name, field, settings) for name, field in settings.model_fields.items()}


@pytest.mark.parametrize(("file", "service", "settings", "kept"), SERVICES)
def test_every_setting_is_passed_or_kept_for_a_reason(
    file: str, service: str, settings: type[BaseSettings], kept: set[str]
) -> None:
    passed, known = environment(file, service), variables(settings)
    assert known - passed.keys() == kept & known
    assert passed.keys() - known <= NO_SETTINGS


@pytest.mark.parametrize(("file", "service", "settings", "kept"), SERVICES)
def test_what_is_passed_keeps_its_name_and_is_a_default_where_empty(
    file: str, service: str, settings: type[BaseSettings], kept: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = environment(file, service)
    for name, value in passed.items():
        given = re.match(r"\$\{(\w+)", value)
        assert given is None or given[1] == name
        if value == f"${{{name}:-}}":
            monkeypatch.setenv(name, "")
    needed = {"model_key": "m"} if settings is WorkerSettings else {}
    empty = settings(**needed)
    for name in passed:
        monkeypatch.delenv(name, raising=False)
    assert empty == settings(**needed)


def test_a_folder_of_ones_own_is_the_cpu_workers_too() -> None:
    content = yaml.safe_load((ROOT / "docker" / "docker-compose-worker-cpu.yml").read_text())
    [service] = content["services"].values()
    assert service["volumes"] == ["${CONFIG_PATH:-../config/demo}:/app/config:ro"]
    assert not any(pair.startswith("CONFIG_PATH=") for pair in service["environment"])


def test_the_example_names_only_what_is_read() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = {found[1] for line in lines if (found := re.match(r"#?([A-Z_]{4,})=", line))}
    read = (
        variables(CoordinatorSettings)
        | variables(WorkerSettings)
        | NO_SETTINGS
        | {"MOLE_URL", "MOLE_API_KEY"}
    )
    assert named <= read
    assert {"MOLE_REQUIRE_API_KEY", "MOLE_CORS_ORIGINS", "MOLE_MAX_REQUESTS_PER_CALLER"} <= named
