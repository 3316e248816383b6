from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from app.services import config_watch as module
from app.services.config_watch import ConfigWatch, Files
from moe_router.errors import ModelAssetError
from tests.stubs import files
from tests.stubs.serving import until

A, B = "http://a:1", "http://b:1"


class Scene:
    def __init__(self, folder: Path) -> None:
        self.registry_file, self.mapping_file = files.write(folder, files.mapping(A))
        self.taken: list[Files] = []
        self.veto: Exception | None = None
        self.watch = ConfigWatch(self.registry_file, self.mapping_file, self._take)

    async def _take(self, found: Files) -> None:
        if self.veto:
            raise self.veto
        self.taken.append(found)

    def urls(self) -> list[str]:
        return [worker.url for worker in self.taken[-1].mapping.workers.values()]


async def test_valid_edits_are_taken_and_invalid_ones_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.watch.load()
    scene.watch.start()
    scene.mapping_file.write_text(json.dumps(files.mapping(A, B)))
    await until(lambda: scene.urls() == [A, B])
    scene.mapping_file.write_text('{\n "workers": 3\n}')
    await until(lambda: scene.watch.refused is not None)
    assert scene.watch.refused is not None
    assert ":2: $.workers" in scene.watch.refused.error
    assert scene.watch.files is scene.taken[-1]
    scratch = tmp_path / "new.json"
    scratch.write_text(json.dumps(files.mapping(B)))
    os.replace(scratch, scene.mapping_file)
    await until(lambda: scene.urls() == [B])
    assert scene.watch.refused is None
    await scene.watch.aclose()


async def test_a_vanished_file_is_refused_until_it_is_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.watch.load()
    scene.watch.start()
    text = scene.registry_file.read_text()
    scene.registry_file.unlink()
    await until(lambda: scene.watch.refused is not None)
    scene.registry_file.write_text(text)
    await until(lambda: scene.watch.refused is None)
    assert len(scene.taken) == 2  # what they name may have gone and come, too
    assert scene.taken[0].registry == scene.taken[1].registry
    await scene.watch.aclose()


async def test_an_edit_that_the_service_cannot_take_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.watch.load()
    scene.veto = ModelAssetError("the probe does not fit")
    scene.mapping_file.write_text(json.dumps(files.mapping(B)))
    await scene.watch.load()
    assert scene.watch.refused is not None
    assert scene.watch.refused.error == "the probe does not fit"
    assert scene.urls() == [A]


async def test_an_edit_that_fails_unexpectedly_is_refused_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    await scene.watch.load()
    scene.veto = KeyError("of ours")
    scene.mapping_file.write_text(json.dumps(files.mapping(B)))
    await scene.watch.load()
    assert scene.watch.refused is not None
    assert scene.watch.refused.error == "KeyError: 'of ours'"
    assert "Traceback" in caplog.text
    assert scene.urls() == [A]
    scene.veto = None
    await scene.watch.load()
    assert scene.watch.refused is None
    assert scene.urls() == [B]


async def test_a_file_that_cannot_be_read_unexpectedly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    await scene.watch.load()

    def broken(_file: Path) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(module, "load_mapping", broken)
    await scene.watch.load()
    assert scene.watch.refused is not None
    assert scene.watch.refused.error == "RecursionError: too deep"
    assert scene.watch.files is not None


async def test_a_bad_file_at_start_leaves_nothing_in_force(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.mapping_file.write_text("{")
    await scene.watch.load()
    assert scene.watch.files is None
    assert scene.watch.refused is not None
