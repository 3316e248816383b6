from __future__ import annotations

from pathlib import Path

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
