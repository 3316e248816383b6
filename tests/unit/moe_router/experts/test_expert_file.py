from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_router.errors import ConfigError, ModelAssetError
from moe_router.experts import expert_file

LABELS = ("negative", "positive")


def _write(folder: Path, **changes: Any) -> Path:
    data = {"labels": LABELS, "template": "{{input}}\nMood:", "temperature": 1.5} | changes
    (folder / expert_file.NAME).write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_an_adapter_made_elsewhere_has_none(tmp_path: Path) -> None:
    assert expert_file.load(tmp_path, LABELS) is None


def test_it_is_read_and_keys_for_people_do_no_harm(tmp_path: Path) -> None:
    found = expert_file.load(_write(tmp_path, words=["bad", "good"], validation={"accuracy": 0.9}), LABELS)
    assert found is not None
    assert (found.words, found.temperature) == (("bad", "good"), 1.5)


@pytest.mark.parametrize(
    ("labels", "reason"), [(("positive", "negative"), "order"), (("negative", "good"), "differs in good")]
)
def test_other_labels_than_the_registrys_are_refused(
    tmp_path: Path, labels: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ModelAssetError, match=reason):
        expert_file.load(_write(tmp_path), labels)


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"words": ["same", "same"]}, {"labels": []}])
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        expert_file.load(_write(tmp_path, **changes), LABELS)
