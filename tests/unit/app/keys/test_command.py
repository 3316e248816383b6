"""`python -m app.keys`, on a real SQLite file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.keys.__main__ import KNOWN_AFTER_S, main
from app.services import storage_command
from app.storage.storage import Storage


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_made_listed_revoked_forgotten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLE_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    limits = ("--rate-per-minute=60", "--quota-per-day=1000", "--expires-in-days=0.5")
    monkeypatch.setattr("app.keys.__main__.KNOWN_AFTER_S", 0.0)
    made = run(capsys, "create", *limits, "--scope=jobs", "--scope=jobs", "--scope=admin", "--", "-odd")
    assert made["key"].startswith(made["prefix"])
    assert (made["name"], made["scopes"]) == ("-odd", ["jobs", "admin"])
    assert made["expires_at"] - made["created_at"] == 43_200
    plain = run(capsys, "create", "b")
    assert plain["scopes"] == ["classify", "jobs", "feedback"]
    listed = run(capsys, "list")
    assert [(key["name"], key["usable"], key["used_today"]) for key in listed] == [
        ("-odd", True, 0),
        ("b", True, 0),
    ]
    assert made["key"] not in json.dumps(listed)
    assert "key_hash" not in listed[0]
    assert run(capsys, "revoke", made["id"])["revoked_at"] is not None
    assert [key["name"] for key in run(capsys, "list")] == ["b"]
    assert len(run(capsys, "list", "--all")) == 2
    run(capsys, "revoke", "--forget", made["id"])
    assert len(run(capsys, "list", "--all")) == 1
    audit = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in audit.splitlines()]
    assert [line["event"] for line in lines] == [
        "key.created", "key.created", "key.revoked", "key.revoked", "key.forgotten",
    ]  # fmt: skip
    assert (lines[0]["key_id"], lines[0]["scopes"]) == (made["id"], ["jobs", "admin"])
    assert made["key"] not in audit


async def owner_and_jobs(url: str, key_id: str) -> tuple[str, list[str]]:
    storage = Storage(url, retention_days=1, queue_size=1, count=lambda *_: None)
    owner = await storage.callers.hash_of(f"key:{key_id}")
    states = [job.state for job in await storage.jobs.newest(owner, limit=9)]
    await storage.aclose()
    return owner, states


async def submit(url: str, owner: str, job_id: str) -> None:
    storage = Storage(url, retention_days=1, queue_size=1, count=lambda *_: None)
    await storage.jobs.begin(job_id, owner, at=1.0, most=9)
    await storage.jobs.append(job_id, 0, ["{}"])
    await storage.jobs.submit(job_id, total=1, key=None, body_hash="h", at=1.0)
    await storage.aclose()


def test_the_end_of_a_key_is_the_end_of_its_jobs_and_the_list_tells_whose_jobs_are_whose(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("MOLE_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    mine, other = run(capsys, "create", "mine"), run(capsys, "create", "other")
    owners = {}
    for key in (mine, other):
        owners[key["id"]], _ = asyncio.run(owner_and_jobs(url, key["id"]))
        asyncio.run(submit(url, owners[key["id"]], f"first-{key['id']}"))
    assert {key["id"]: key["owner"] for key in run(capsys, "list")} == {
        key_id: owner[:16] for key_id, owner in owners.items()
    }
    waited: list[float] = []

    async def meanwhile(seconds: float) -> None:
        """A coordinator that does not know yet takes another job."""
        waited.append(seconds)
        await submit(url, owners[mine["id"]], "late")

    with monkeypatch.context() as patch:
        patch.setattr("app.keys.__main__.asyncio.sleep", meanwhile)
        assert run(capsys, "revoke", mine["id"])["jobs_cancelled"] == 2
    assert waited == [KNOWN_AFTER_S]
    assert asyncio.run(owner_and_jobs(url, mine["id"]))[1] == ["cancelled"] * 2
    assert asyncio.run(owner_and_jobs(url, other["id"]))[1] == ["queued"]
    assert run(capsys, "revoke", mine["id"])["jobs_cancelled"] == 0
    told = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["key_id"], line["jobs"]) for line in told if line["event"] == "jobs.cancelled"] == [
        (mine["id"], 2)
    ]


def test_a_key_tells_its_database_and_a_missing_one_is_made_for_a_key_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state" / "coordinator.sqlite3"
    monkeypatch.setenv("MOLE_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOLE_STATE_DIR", "state")
    mend = "name the coordinator's own with MOLE_STATE_DIR, DATABASE_URL or --database\n"
    for wanted in (["list"], ["list", "--all"], ["revoke", "x"]):
        assert main(wanted) == 1
        assert capsys.readouterr().err == f"there is no database {file}; {mend}"
        assert list(tmp_path.iterdir()) == []
    assert main(["create", "a"]) == 0
    new = f"which is new: a coordinator elsewhere does not know the key; {mend}"
    assert capsys.readouterr().err == f"the key is in {file}, {new}"
    assert main(["create", "b"]) == 0
    assert capsys.readouterr().err == f"the key is in {file}\n"
    assert main(["list"]) == 0
    assert capsys.readouterr().err == ""


def test_a_database_is_told_without_its_password() -> None:
    given = "postgresql://mole:secret@db:5432/mole?password=secret&sslpassword=secret"
    assert storage_command._place(given) == ("postgresql://mole:***@db:5432/mole", False)


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["create", "a"]) == 0
    capsys.readouterr()
    assert main(["revoke", "nobody"]) == 1
    assert capsys.readouterr().err == "There is no API key 'nobody'.\n"
    monkeypatch.setenv("DATABASE_URL", "mysql://x:secret@y/z")
    assert main(["list"]) == 1
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        "--rate-per-minute=0", "--quota-per-day=x", "--scope=everything",
        "--expires-in-days=nan", "--expires-in-days=1e400", "--expires-in-days=-1",
    ],
)  # fmt: skip
def test_wrong_options(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    with pytest.raises(SystemExit):
        main(["create", wrong, "a"])
    assert "Traceback" not in capsys.readouterr().err
