"""Monolithic mode takes an operator's settings as a worker does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.services import factory
from app.settings import Settings
from expert_worker.service import single_model_pool
from expert_worker.settings import Settings as WorkerSettings
from moe_router.experts.lru_pool import LruModelPool
from moe_router.experts.pool import SingleModelPool
from tests.stubs import files
from tests.stubs.serving import registry

GIVEN = {
    "MOLE_ENGINE_API_KEY": "s3cret", "MOLE_REQUIRE_4BIT": "true", "MOLE_MAX_BATCH_TOKENS": "300",
    "MOLE_MAX_QUEUE": "7", "MOLE_NUM_THREADS": "3", "MAX_CONCURRENT_GPU_REQUESTS": "2",
    "ADAPTER_PATH": "elsewhere", "MOLE_CACHE_DIR": "cache",
}  # fmt: skip


@pytest.mark.parametrize("given", [{}, GIVEN])
def test_experts_run_in_this_process_as_at_a_worker(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings, worker_settings = Settings(), WorkerSettings(model_key=files.MODEL)
    here = factory._pool(registry(), settings)
    there = single_model_pool(registry(), worker_settings)
    assert isinstance(here, LruModelPool)
    assert isinstance(there, SingleModelPool)
    assert replace(here._config, worker_id="") == replace(there._host._config, worker_id="")
    assert here._config.api_key == given.get("MOLE_ENGINE_API_KEY")
    assert "s3cret" not in repr(settings) + repr(here._config)
