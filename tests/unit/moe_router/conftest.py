from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.unit.moe_router import tiny_encoder  # loads transformers, which most tests do without

    return tiny_encoder.save(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    from moe_router.assets.encoder import ensure_encoder

    return ensure_encoder(tmp_path_factory.mktemp("cache"), name=str(checkpoint))
