from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.moe_router.experts import tiny


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("gemma"), "gemma")
