"""`mole keys` as its own process, on a real SQLite file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.mole.test_command import mole


def test_a_key_from_its_making_to_its_end(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    made = mole("keys", "create", "ci robot", "--scope", "jobs", "--quota-per-day", "50", "--database", url)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("mole_")  # alone, so that a script can take it
    assert "key.created" in made.stderr  # the audit log, where no file is set
    assert key not in made.stderr
    assert f"the key is in {tmp_path}/x.sqlite3, which is new" in made.stderr
    shown = mole("keys", "list", "--database", url)
    for told in ("ci robot", "jobs", "0 of 50", "never", key[:12]):
        assert told in shown.stdout
    assert key not in shown.stdout
    assert shown.stdout.split()[0] in mole("keys", "list", "--json", DATABASE_URL=url).stdout  # the id, whole
    (listed,) = json.loads(mole("keys", "list", "--json", DATABASE_URL=url).stdout)
    ended = mole("keys", "revoke", listed["id"], "--database", url)
    assert "is revoked" in ended.stdout
    assert mole("keys", "list", "--database", url).stdout == "no valid key\n"
    assert "revoked" in mole("keys", "list", "--all", "--database", url).stdout


def test_json_holds_everything(tmp_path: Path):
    made = mole("keys", "create", "a", "--json", "--database", f"sqlite:///{tmp_path}/x.sqlite3")
    told = json.loads(made.stdout)
    assert told["key"].startswith(told["prefix"])
    assert told["scopes"] == ["classify", "jobs", "feedback"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["create", " "],
        ["create", "a", "--scope", "x"],
        ["create", "a", "--rate-per-minute", "0"],
        ["create", "a", "--expires-in-days", "36501"],
    ],
)
def test_wrong_usage_is_exit_code_2(wrong: list[str], tmp_path: Path):
    done = mole("keys", *wrong, "--database", f"sqlite:///{tmp_path}/x.sqlite3")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_unknown_key_is_one_line_and_exit_code_1(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    assert mole("keys", "create", "a", "--database", url).returncode == 0
    done = mole("keys", "revoke", "nobody", "--database", url)
    assert (done.returncode, done.stderr) == (1, "mole: There is no API key 'nobody'.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "list"],
        ["keys", "revoke", "x"],
        ["router", "versions"],
        ["router", "promote", "1"],
        ["router", "rollback"],
        ["train", "router", "--from-feedback"],
    ],
)
def test_a_database_that_is_not_there_is_told_and_not_made(arguments: list[str], tmp_path: Path):
    done = mole(*arguments, MOLE_STATE_DIR=str(tmp_path / "elsewhere"))
    file = tmp_path / "elsewhere" / "coordinator.sqlite3"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"mole: there is no database {file}; "
        "name the coordinator's own with MOLE_STATE_DIR, DATABASE_URL or --database\n"
    )
    assert not file.parent.exists()


def test_a_key_that_ends_beyond_the_calendar_is_listed(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    assert mole("keys", "create", "a", "--expires-in-days", "1", "--database", url).returncode == 0
    # Earlier versions made such keys.
    with closing(sqlite3.connect(tmp_path / "x.sqlite3")) as database, database:
        database.execute("UPDATE api_keys SET expires_at = created_at + 86400.0 * 9999999")
    shown = mole("keys", "list", "--database", url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "ends after the year 9999" in shown.stdout


def test_an_unusable_setting_is_named_and_not_quoted(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    done = mole("keys", "list", "--database", url, MOLE_MAX_TEXT_CHARS="secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mole: the setting MOLE_MAX_TEXT_CHARS is unusable: Input should be")
    assert "secret" not in done.stderr
