"""API keys made and revoked by the command while a coordinator runs."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from mole.client import Mole, MoleAPIError
from tests.integration.services.test_services import CLASSIFY, FIXED, eventually
from tests.stubs import files
from tests.stubs.processes import Process, Stage
from tests.unit.mole.test_command import mole

BODY = {"text": "positive", "options": FIXED}


def status(coordinator: Process, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(coordinator.url + CLASSIFY, json=BODY, headers=headers, timeout=30, trust_env=False)
    return answer.status_code


@pytest.mark.timeout(120)
def test_a_key_counts_within_seconds_and_so_does_its_end(stage: Stage, tmp_path: Path) -> None:
    worker = stage.worker(MOLE_WORKER_TOKEN="between-us")
    files.write(stage.folder, files.mapping(worker.url))
    database = f"sqlite:///{tmp_path}/shared.sqlite3"
    # Two processes on one database, as behind a load balancer.
    given = {"DATABASE_URL": database, "MOLE_WORKER_TOKEN": "between-us"}
    pair = [stage.coordinator(**given), stage.coordinator(**given)]
    for coordinator in pair:
        coordinator.wait_for("/api/v1/health/ready")
        eventually(lambda coordinator=coordinator: status(coordinator) == 200)
    assert "no API key exists" in pair[0].log.read_text()

    made = json.loads(mole("keys", "create", "ci", "--json", "--database", database).stdout)
    for coordinator in pair:
        eventually(lambda coordinator=coordinator: status(coordinator) == 401, 10)
        assert status(coordinator, made["key"]) == 200
        with Mole(coordinator.url, api_key=made["key"]) as client:
            assert client.classify("positive", **FIXED).result == "positive"
        done = mole("classify", "positive", "-t", files.SENTIMENT, "-l", "en", "--url", coordinator.url)
        assert (done.returncode, "MOLE_API_KEY" in done.stderr) == (1, True)
        environment = {"MOLE_API_KEY": made["key"], "MOLE_URL": coordinator.url}
        assert mole("classify", "positive", "-t", files.SENTIMENT, "-l", "en", **environment).returncode == 0

    # What both let in adds up in the database.
    listed = eventually(lambda: _used(database, 6), 10)
    assert listed["last_used_at"] is not None

    assert mole("keys", "revoke", made["id"], "--database", database).returncode == 0
    for coordinator in pair:
        eventually(lambda coordinator=coordinator: status(coordinator, made["key"]) == 401, 10)
        with Mole(coordinator.url, api_key=made["key"]) as client, pytest.raises(MoleAPIError) as refused:
            client.classify("positive", **FIXED)
        assert refused.value.status == 401
        assert made["key"] not in coordinator.log.read_text()


def _used(database: str, texts: int) -> dict[str, object] | None:
    (listed,) = json.loads(mole("keys", "list", "--json", "--database", database).stdout)
    found: dict[str, object] = listed
    return found if listed["used_today"] == texts else None
