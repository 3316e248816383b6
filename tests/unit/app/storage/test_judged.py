from __future__ import annotations

from pathlib import Path

from app.storage.records import FeedbackRecord
from app.storage.storage import Storage
from tests.stubs.records import TASK, record, step
from tests.unit.app.storage.test_storage import DAY_S, NOW, make


async def judged(storage: Storage, request_id: str, at: float, **said: object) -> None:
    found = await storage.decisions.find(request_id, "c")
    assert found is not None
    given = {"correct_task": None, "correct_label": None, "score": None} | said
    await storage.feedback.put(
        FeedbackRecord(request_id=request_id, caller_hash="c", decision_id=found.id, at=at, **given)  # type: ignore[arg-type]
    )


async def test_the_newest_feedback_comes_first_with_its_decision(tmp_path: Path) -> None:
    storage = make(tmp_path)
    try:
        records = [record(f"r-{i}", created_at=NOW, router_version=i or None) for i in range(3)]
        await storage.decisions.add([*records, record("unjudged", created_at=NOW)])
        for i in (2, 0, 1):
            await judged(storage, f"r-{i}", NOW + i, correct_label="positive")
        assert await storage.judged.count() == 3
        rows = await storage.judged.newest(2)
        assert [row.router_version for row in rows] == [2, 1]
        assert (rows[0].task, rows[0].correct_label, rows[0].score) == (TASK, "positive", None)
        assert rows[0].observations == [step()]
        assert rows[0].task_probabilities[TASK] == 0.9
    finally:
        await storage.aclose()


async def test_an_expired_decision_takes_its_row_along(tmp_path: Path) -> None:
    storage = make(tmp_path)
    try:
        await storage.decisions.add([record("old", created_at=NOW - 99 * DAY_S)])
        await judged(storage, "old", NOW, score=1.0)
        await storage.purge()
        assert await storage.judged.count() == 0
        assert await storage.judged.newest(9) == []
    finally:
        await storage.aclose()
