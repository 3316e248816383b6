from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL

from app.storage.engine import blocking_engine, read_url
from app.storage.migrate import FOLDER, migrate
from app.storage.migrations import HEAD
from app.storage.models import Base
from tests.stubs.schema import differences, migrate_in_processes, revision_of


def test_from_blank_the_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    url = read_url(f"sqlite:///{tmp_path}/new folder/x.sqlite3")
    migrate(url)
    assert differences(url) == []
    assert revision_of(url) == HEAD
    with sqlite3.connect(str(url.database)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert tables == {*Base.metadata.tables, "alembic_version"}
    migrate(url)


def test_a_difference_would_be_found(tmp_path: Path) -> None:
    url = read_url(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(url)
    with sqlite3.connect(str(url.database)) as connection:
        connection.execute("ALTER TABLE jobs DROP COLUMN body_hash")
        connection.execute("DROP INDEX ix_decisions_request_id")
    assert {found[0] for found in differences(url)} == {"add_column", "add_index"}


def test_the_newest_revision_is_named_right() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_it_can_be_taken_back(tmp_path: Path) -> None:
    url = read_url(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(url)
    _step(url, command.downgrade, "base")
    assert revision_of(url) is None
    migrate(url)
    assert differences(url) == []


def test_decisions_of_before_stay_and_say_nothing_of_the_probe(tmp_path: Path) -> None:
    url = read_url(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(url)
    _step(url, command.downgrade, "0002")
    columns = {
        "request_id": "r", "caller": "c", "created_at": 1.0, "language": "en", "language_probability": 1.0,
        "domain_probabilities": "{}", "task_probabilities": "{}", "none_probability": 0.0, "task_fixed": 0,
        "propensity": 1.0, "observations": "[]",
    }  # fmt: skip
    with sqlite3.connect(str(url.database)) as connection:
        marks = ", ".join("?" * len(columns))
        connection.execute(
            f"INSERT INTO decisions ({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
            tuple(columns.values()),
        )
    migrate(url)
    with sqlite3.connect(str(url.database)) as connection:
        assert connection.execute("SELECT request_id, via FROM decisions").fetchall() == [("r", None)]
        names = "request_id, caller, created_at, updated_at, score, decision_id"
        connection.execute(f"INSERT INTO feedback ({names}) VALUES ('r', 'c', 1.0, 1.0, 1.0, 1)")  # noqa: S608
    _step(url, command.downgrade, "0002")
    with sqlite3.connect(str(url.database)) as connection:
        assert connection.execute("SELECT decision_id FROM feedback").fetchall() == [(1,)]


def _step(url: URL, run: Callable[[Config, str], None], revision: str) -> None:
    engine = blocking_engine(url)
    with engine.connect() as connection, connection.begin():
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        run(config, revision)
    engine.dispose()


def test_processes_that_start_at_once_do_not_collide(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    assert migrate_in_processes(url, 6) == []
    assert differences(read_url(url)) == []


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    url = read_url(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(url)
    with sqlite3.connect(str(url.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CommandError):
        migrate(url)


def test_only_a_start_that_has_to_migrate_loads_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    code = (
        "import asyncio, sys; from app.storage.database import Database\n"
        "async def main():\n"
        "    database = Database(sys.argv[1])\n"
        "    await database.ready()\n"
        "    await database.aclose()\n"
        "asyncio.run(main()); print('alembic' in sys.modules)"
    )
    for expected in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, url], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
