from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from moe_router import file_watch
from moe_router.file_watch import FileWatch
from tests.stubs.serving import until


async def test_a_changed_file_is_told_once_and_a_failing_callback_does_not_end_it(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    told: list[str] = []

    async def changed() -> None:
        told.append(file.read_text(encoding="utf-8"))
        if told == ["1"]:
            raise RuntimeError("this edit is not to be had")

    watch = FileWatch([file], changed)
    watch.note()
    watch.start()
    (tmp_path / "other.json").write_text("0", encoding="utf-8")
    file.write_text("1", encoding="utf-8")
    await until(lambda: told == ["1"])
    file.write_text("22", encoding="utf-8")
    await until(lambda: told == ["1", "22"])
    await watch.aclose()


async def test_a_folder_that_is_missing_is_told_once_and_watched_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_watch, "LOOK_EVERY_MS", 20)
    caplog.set_level(logging.WARNING)
    file = tmp_path / "later" / "a.json"
    told: list[str] = []

    async def changed() -> None:
        told.append(file.read_text(encoding="utf-8"))

    watch = FileWatch([file], changed)
    watch.note()
    watch.start()
    await until(lambda: bool(caplog.records))
    await asyncio.sleep(0.2)  # ten more looks
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    file.parent.mkdir()
    file.write_text("1", encoding="utf-8")
    await until(lambda: told == ["1"])
    await watch.aclose()
