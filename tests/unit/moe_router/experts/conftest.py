from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from moe_router.experts.engines.base import Job, Outcome
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.experts.model_host import PoolConfig
from moe_router.registry import Registry
from tests.unit.moe_router.experts import tiny
from tests.unit.moe_router.experts.tasks import task


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


@pytest.fixture
def config(tmp_path: Path, adapter_folders: tuple[Path, Path]) -> PoolConfig:
    (tmp_path / "t.json").write_text(json.dumps({"default": "Text: {{input}}\nLabel:"}))
    (tmp_path / "q.json").write_text(json.dumps({"default": "{{query}} {{input}}\nLabel:"}))
    (tmp_path / "bad.json").write_text(json.dumps({"default": "nothing"}))
    (tmp_path / "one").symlink_to(adapter_folders[0])
    (tmp_path / "two").symlink_to(adapter_folders[1])
    return PoolConfig(
        adapter_root=tmp_path, cache_dir=tmp_path / "cache", worker_id="w-1", max_text_tokens=64
    )


@pytest.fixture
def registry(gemma_folder: Path, llama_folder: Path) -> Registry:
    return Registry.model_validate(
        {
            "base_models": {"g": {"hf_name": str(gemma_folder)}, "l": {"hf_name": str(llama_folder)}},
            "tasks": {
                "a/plain": task(description="Judge the text."),
                "a/tuned": task(
                    adapter_name="tuned",
                    adapter_path="one",
                    template_path="t.json",
                    supported_languages=["en", "de"],
                    language_mapping={
                        "french": {"adapter_name": "tuned.fr", "adapter_path": "two"},
                        "chinese": {"base_model_key": "l"},
                    },
                ),
                "a/worded": task(
                    adapter_name="tuned",
                    adapter_path="one",
                    supported_languages=["en", "fr"],
                    language_mapping={"french": {"template_path": "t.json"}},
                ),
                "a/query": task(template_path="q.json"),
                "a/spans": task(kind="extraction", label_set=["PERSON", "EMAIL"]),
                "a/broken": task(adapter_name="gone", adapter_path="no/such/adapter"),
                "a/untold": task(template_path="bad.json"),
                "a/other": task(base_model_key="l"),
            },
        }
    )


@pytest.fixture
def computed_in(monkeypatch: pytest.MonkeyPatch) -> set[threading.Thread]:
    """The threads in which models have computed."""
    found: set[threading.Thread] = set()
    infer = TransformersEngine.infer

    def noting(self: TransformersEngine, jobs: Sequence[Job]) -> list[Outcome]:
        found.add(threading.current_thread())
        return infer(self, jobs)

    monkeypatch.setattr(TransformersEngine, "infer", noting)
    return found
