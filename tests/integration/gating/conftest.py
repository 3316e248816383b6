from __future__ import annotations

from pathlib import Path

import pytest

from moe_router.gating.pipeline import GatingConfig, GatingPipeline
from moe_router.registry import load_registry
from mole.settings import CommandSettings

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def loaded() -> GatingPipeline:
    registry = load_registry(ROOT / "config" / "demo" / "experts_registry.json")
    return GatingPipeline.load(registry, GatingConfig(CommandSettings().cache, threads=2))


@pytest.fixture
async def pipeline(loaded: GatingPipeline) -> GatingPipeline:
    return loaded


@pytest.fixture
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"the datasets are not beside the project ({DATA.name})")
    return DATA
