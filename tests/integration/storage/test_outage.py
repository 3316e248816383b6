"""The PostgreSQL server goes away under a coordinator that serves, or hangs, and comes back."""

from __future__ import annotations

import psycopg
import pytest

from app.main import create_app
from app.settings import Settings
from app.storage import migrate
from app.storage.database import Database
from moe_router.errors import StorageError
from tests.stubs import files
from tests.stubs.gating import StubGating
from tests.stubs.postgres import PostgresServer
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import CLASSIFY, local, problem

FEEDBACK = "/api/v1/feedback"


async def test_answers_go_on_feedback_is_a_503_and_recovers_without_a_restart(
    server: PostgresServer, postgres_url: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    files.write(tmp_path, files.mapping("http://127.0.0.1:9"))
    given = Settings(config_path=tmp_path, service_mode="monolithic")
    app = create_app(given, load_gating=StubGating.load, make_experts=local)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")

        async def ask(request_id: str) -> None:
            answer = await client.post(CLASSIFY, json={"text": "x"}, headers={"X-Request-ID": request_id})
            assert answer.status_code == 200

        async def judge(request_id: str):
            return await client.post(FEEDBACK, json={"request_id": request_id, "score": 1})

        await ask("before")
        assert (await judge("before")).status_code == 202
        server.stop()
        try:
            await ask("during")
            for _ in range(3):
                problem(await judge("before"), 503, "storage-unavailable")
            await ask("during-2")
        finally:
            server.start()
        for request_id in ("before", "during", "during-2"):
            answer = await judge(request_id)
            assert (answer.status_code, answer.json()["replaced"]) == (202, request_id == "before")


async def test_a_migration_waits_for_another_process_only_so_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 1)
    database = Database(postgres_url)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [migrate.LOCK_KEY])
        with pytest.raises(StorageError):
            await database.ready()
    await database.ready()
    await database.aclose()
