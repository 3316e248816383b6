"""A run of the learner over a real database; gating and what must not be forgotten are small stand-ins."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.learning import __main__ as command
from app.learning import training
from app.learning.training import TrainRun, train
from app.services import storage_command
from app.settings import Settings
from app.storage.records import FeedbackRecord
from app.storage.storage import Storage
from moe_router.errors import MoleError
from moe_router.gating.versions import pack, unpack
from moe_router.training.feedback import learner
from moe_router.training.feedback.judging import Bars
from tests.stubs.records import record
from tests.unit.moe_router.gating.made import CLASSES, HIDDEN, registry
from tests.unit.moe_router.training import feedback_world as world


class Gating:
    """A pipeline as far as the learner uses one."""

    def __init__(self) -> None:
        self.shipped = self.learned = world.shipped()
        self.encoder = SimpleNamespace(encoder=SimpleNamespace(identity="toy", hidden=HIDDEN))
        own = world.serving()
        self.heads = SimpleNamespace(domains=own.domains)
        self.words = None
        self.shipped_digest = "now"
        self.config = SimpleNamespace(target_risk=0.05)
        self.router_of = own.make

    async def use_router(self, weights: Any, _version: int | None) -> None:
        self.learned = weights

    async def aclose(self) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    file = tmp_path / "registry.json"
    own = {"base_models": {"m": {"hf_name": "org/m"}}}
    tasks = {key: {"base_model_key": "m", "label_set": ["yes", "no"]} for key in registry().tasks}
    file.write_text(json.dumps(own | {"tasks": tasks}), encoding="utf-8")
    monkeypatch.setattr(training.factory, "load_gating", lambda *_: Gating())
    monkeypatch.setattr(training, "_memory", lambda *_: world.memory(np.random.default_rng(0)))
    # The toy network was made by hand: its answers are no measure for one that is being trained.
    monkeypatch.setattr(learner, "LearnRun", partial(learner.LearnRun, bars=Bars(answers_fall=1.0)))
    return Settings(registry_path=file, state_dir=tmp_path, cache_dir=tmp_path)


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    found = Storage(settings.database, retention_days=30, queue_size=10, count=lambda *_: None)
    yield found
    await found.database.aclose()


async def judged(storage: Storage, count: int = 120) -> None:
    """Callers ask for b/z by a new word; of the 24 of them five judge."""
    rng = np.random.default_rng(1)
    records = [
        record(
            f"r-{i}", encoder="toy", task="a/x",
            description_vector=world.noisy(world.NOVEL, rng).astype("<f2").tobytes(),
            text_vector=None, task_probabilities=dict.fromkeys(CLASSES, 0.3),
        )
        for i in range(count)
    ]  # fmt: skip
    await storage.decisions.add(records)
    for i in range(count):
        found = await storage.find_decision(f"r-{i}", "c")
        assert found is not None
        caller = f"c-{i % 24}"
        said = FeedbackRecord(f"r-{i}", caller, found.id, "b/z", None, None, float(i + 1))
        await storage.feedback.put(said)


def quiet(_message: str, _done: float) -> None:
    pass


async def test_without_feedback_there_is_no_version(storage, settings):
    assert await train(storage, settings, TrainRun(None), quiet) == {"outcome": "nothing", "rows": 0}
    assert await storage.router_versions.list() == []


async def test_a_better_router_goes_live_and_the_next_run_goes_on_from_it(storage, settings):
    await judged(storage)
    found = await train(storage, settings, TrainRun(None), quiet)
    assert (found["outcome"], found["id"], found["reasons"]) == ("promoted", 1, [])
    live = await storage.router_versions.live()
    assert live.metrics["taught"]["callers"] == 19
    assert live.meta["shipped"] == "now"
    weights = unpack(await storage.router_versions.weights(1), live.meta)
    assert weights.tasks.meta["encoder"] == "toy"
    again = await train(storage, settings, TrainRun(None, promote=False), quiet)
    assert again["id"] == 2
    assert (await storage.router_versions.list())[0].parent_id == 1
    assert (await storage.router_versions.live()).id == 1


async def test_what_an_older_release_may_have_learned_from_judges_no_more(storage, settings):
    """Nor is a run that was rejected drawn anew: the next one makes the same of the same feedback."""
    await judged(storage)  # decided at 1000
    blob, meta = pack(world.shipped())
    await storage.router_versions.add(blob, meta=meta, metrics={}, parent_id=None, at=2000.0)
    found = await train(storage, settings, TrainRun(None), quiet)
    assert found["held_out"]["rows"] == 0
    assert found["taught"]["rows"] == 120
    again = await train(storage, settings, TrainRun(None), quiet)
    assert (again["taught"], again["guard"]) == (found["taught"], found["guard"])


async def test_what_an_operator_does_meanwhile_stands(storage, settings, monkeypatch):
    await judged(storage)
    blob, meta = pack(world.shipped())
    theirs = await storage.router_versions.add(blob, meta=meta, metrics={}, parent_id=None, at=1.0)
    add = storage.router_versions.add

    async def add_late(*args: Any, **given: Any) -> int:
        await storage.router_versions.promote(theirs, at=2.0)
        return await add(*args, **given)

    monkeypatch.setattr(storage.router_versions, "add", add_late)
    found = await train(storage, settings, TrainRun(None), quiet)
    assert found["outcome"] == "candidate"
    assert found["not_promoted"] == f"version {theirs} is live by now, not the package's own router."
    assert (await storage.router_versions.live()).id == theirs


async def test_a_dry_run_stores_nothing_and_the_cap_holds(storage, settings):
    await judged(storage)
    found = await train(storage, settings, TrainRun(None, per_caller=2, dry_run=True), quiet)
    assert found["taught"]["rows"] == 38
    assert await storage.router_versions.list() == []


async def test_what_is_not_better_is_stored_as_rejected_with_the_reasons(storage, settings, monkeypatch):
    await judged(storage, 20)  # too few to judge by
    found = await train(storage, settings, TrainRun(None), quiet)
    assert found["outcome"] == "rejected"
    version = (await storage.router_versions.list())[0]
    assert version.state == "rejected"
    assert version.metrics["reasons"][0].startswith("feedback: fewer than 10 held-out rows")
    assert await storage.router_versions.live() is None


async def test_a_live_version_that_does_not_fit_is_named(storage, settings, monkeypatch):
    blob, _ = pack(world.shipped())
    await storage.router_versions.add(blob, meta={}, metrics={}, parent_id=None, at=1.0)
    await storage.router_versions.promote(1, at=1.0)
    with pytest.raises(MoleError, match="version 1 is live but does not fit"):
        await train(storage, settings, TrainRun(None), quiet)


async def test_new_shipped_weights_are_learned_from_and_take_the_old_versions_place(storage, settings):
    await judged(storage)
    blob, meta = pack(world.shipped(), "of an earlier release")
    await storage.router_versions.add(blob, meta=meta, metrics={}, parent_id=None, at=1.0)
    await storage.router_versions.promote(1, at=1.0)
    found = await train(storage, settings, TrainRun(None), quiet)
    assert (found["outcome"], found["id"]) == ("promoted", 2)
    live = await storage.router_versions.live()
    assert (live.id, live.parent_id, live.meta["shipped"]) == (2, None, "now")


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def _environment(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage_command, "Settings", lambda: settings)
        (settings.state_dir / "coordinator.sqlite3").touch()  # only a key may be the first in a database

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
        code = command.main(arguments)
        out, err = capsys.readouterr()
        return json.loads(out) if code == 0 else (code, err)

    def test_versions_are_listed_promoted_and_rolled_back(self, capsys, settings):
        assert self.run(capsys, "versions") == []

        async def two() -> None:
            own = Storage(settings.database, retention_days=1, queue_size=1, count=lambda *_: None)
            blob, meta = pack(world.shipped())
            for _ in range(2):
                await own.router_versions.add(blob, meta=meta, metrics={}, parent_id=None, at=1.0)
            await own.database.aclose()

        asyncio.run(two())
        assert [v["state"] for v in self.run(capsys, "versions")] == ["candidate", "candidate"]
        assert self.run(capsys, "promote", "1")["state"] == "live"
        assert self.run(capsys, "promote", "2")["id"] == 2
        assert self.run(capsys, "rollback")["id"] == 1
        assert self.run(capsys, "rollback") == {"id": None}

    def test_an_error_is_one_line(self, capsys):
        assert self.run(capsys, "promote", "9") == (1, "There is no router version 9.\n")

    def test_training_prints_its_outcome(self, capsys):
        assert self.run(capsys, "train", "--dry-run") == {"outcome": "nothing", "rows": 0}


def test_learning_needs_nothing_that_the_image_lacks():
    """The image has what requirements.txt names, and its coordinator learns from feedback."""
    absent = dict.fromkeys(("scipy", "sklearn", "matplotlib"))
    code = f"import sys; sys.modules.update({absent}); import app.learning.__main__"
    code += "; import moe_router.training.feedback.learner"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
