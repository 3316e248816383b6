"""Seeding: what is the image's is renewed, what is the operator's stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moe_router.assets import seed as seeding
from moe_router.assets.seed import MANIFEST, Report, main, seed


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    found = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".mole-")]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in found}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


def image(tmp_path: Path, version: int, **more: str) -> Path:
    files = {"task/lora/weights": f"weights {version}", "task/lora/config": f"config {version}"}
    return write(tmp_path / f"image{version}", {**files, "task/template": "template", **more})


def test_an_empty_volume_gets_everything(tmp_path: Path, volume: Path):
    shipped = image(tmp_path, 1)
    report = seed(shipped, volume)
    assert content(volume) == content(shipped)
    assert sorted(report.added) == sorted(content(shipped))


def test_a_second_start_changes_nothing(tmp_path: Path, volume: Path):
    shipped = image(tmp_path, 1)
    seed(shipped, volume)
    before = {path: path.stat().st_ino for path in volume.rglob("*") if not path.name.startswith(".mole-")}
    assert seed(shipped, volume) == Report()
    assert before == {path: path.stat().st_ino for path in before}


def test_a_newer_image_renews_its_own_files(tmp_path: Path, volume: Path):
    seed(image(tmp_path, 1), volume)
    report = seed(image(tmp_path, 2, **{"task/other/weights": "new"}), volume)
    assert content(volume) == content(tmp_path / "image2")
    assert sorted(report.replaced) == ["task/lora/config", "task/lora/weights"]
    assert report.added == ["task/other/weights"]


def test_files_that_docker_copied_into_a_new_volume_are_the_images(tmp_path: Path, volume: Path):
    write(volume, content(image(tmp_path, 1)))
    assert seed(tmp_path / "image1", volume) == Report()
    assert seed(image(tmp_path, 2), volume).kept == []
    assert content(volume) == content(tmp_path / "image2")


def test_what_the_operator_added_stays(tmp_path: Path, volume: Path):
    seed(image(tmp_path, 1), volume)
    write(volume, {"task/mine/weights": "mine", "task/lora/notes": "mine too"})
    seed(image(tmp_path, 2), volume)
    assert content(volume) == {
        **content(tmp_path / "image2"), "task/mine/weights": "mine", "task/lora/notes": "mine too"
    }  # fmt: skip


def test_a_changed_file_keeps_its_whole_unit_and_no_other(tmp_path: Path, volume: Path):
    seed(image(tmp_path, 1), volume)
    write(volume, {"task/lora/weights": "retrained"})
    shipped = image(tmp_path, 2, **{"task/lora/third": "new", "task/template": "template 2"})
    report = seed(shipped, volume)
    assert content(volume) == {
        "task/lora/weights": "retrained", "task/lora/config": "config 1", "task/template": "template 2"
    }  # fmt: skip
    assert sorted(report.kept) == ["task/lora/config", "task/lora/third", "task/lora/weights"]


def test_a_unit_stays_the_operators_over_further_images(tmp_path: Path, volume: Path):
    seed(image(tmp_path, 1), volume)
    write(volume, {"task/lora/weights": "retrained"})
    for version in (2, 3):
        seed(image(tmp_path, version), volume)
    assert content(volume)["task/lora/weights"] == "retrained"
    assert content(volume)["task/lora/config"] == "config 1"


def test_together_one_changed_file_keeps_all(tmp_path: Path, volume: Path):
    seed(image(tmp_path, 1), volume, together=True)
    write(volume, {"task/template": "mine"})
    seed(image(tmp_path, 2), volume, together=True)
    assert content(volume) == {**content(tmp_path / "image1"), "task/template": "mine"}


def test_a_file_that_was_removed_comes_back(tmp_path: Path, volume: Path):
    shipped = image(tmp_path, 1)
    seed(shipped, volume)
    (volume / "task/lora/config").unlink()
    write(volume, {"task/lora/weights": "retrained"})
    assert seed(shipped, volume).added == ["task/lora/config"]  # the very one that was there


def test_what_was_there_before_the_first_seeding_is_the_operators(tmp_path: Path, volume: Path):
    write(volume, {"task/lora/weights": "brought along"})
    report = seed(image(tmp_path, 1), volume)
    assert content(volume) == {"task/lora/weights": "brought along", "task/template": "template"}
    assert report.kept == ["task/lora/config", "task/lora/weights"]


@pytest.mark.parametrize("damage", ["no json", "[]"])
def test_a_damaged_manifest_costs_no_file(tmp_path: Path, volume: Path, damage: str):
    seed(image(tmp_path, 1), volume)
    (volume / MANIFEST).write_text(damage)
    seed(image(tmp_path, 2), volume)
    assert content(volume) == content(tmp_path / "image1")


def test_a_seeding_that_broke_off_is_finished_by_the_next(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
):
    seed(image(tmp_path, 1), volume)
    second = image(tmp_path, 2)
    copy = seeding._copy

    def fail_at_weights(source: Path, target: Path) -> None:
        if target.name == "weights":
            raise OSError("no space left")
        copy(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(seeding, "_copy", fail_at_weights)
        with pytest.raises(OSError, match="no space"):
            seed(second, volume)
    seed(second, volume)
    assert content(volume) == content(second)
    assert set(json.loads((volume / MANIFEST).read_text())) == set(content(second))


def test_the_command_tells_what_it_kept(tmp_path: Path, volume: Path, caplog: pytest.LogCaptureFixture):
    assert main([str(image(tmp_path, 1)), str(volume)]) == 0
    write(volume, {"task/lora/weights": "mine"})
    caplog.clear()
    assert main(["--together", str(image(tmp_path, 2)), str(volume)]) == 0
    assert "left as they are" in caplog.text
    assert "task/lora/weights" in caplog.text


def test_a_target_that_cannot_be_filled_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    target = write(tmp_path, {"file": "in the way"}) / "file"
    assert main([str(image(tmp_path, 1)), str(target)]) == 0
    assert f"cannot be filled by user {os.getuid()}" in caplog.text
