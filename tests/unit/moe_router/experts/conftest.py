from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.moe_router.experts import tiny


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("gemma"), "gemma")


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory, gemma_folder: Path) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return (
        tiny.save_adapter(root / "first", gemma_folder, seed=1),
        tiny.save_adapter(root / "second", gemma_folder, seed=2),
    )
