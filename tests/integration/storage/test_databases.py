"""Every repository, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from app.storage import router_versions
from app.storage.callers import Callers
from app.storage.database import Database
from app.storage.decisions import Decisions
from app.storage.engine import read_url
from app.storage.feedback import FeedbackRows
from app.storage.jobs import Jobs
from app.storage.migrate import migrate
from app.storage.models import Decision, Feedback, Job, JobItem
from app.storage.records import FeedbackRecord
from app.storage.replay import ReplayRows
from app.storage.router_versions import RouterVersions
from moe_router.errors import StorageError, UnknownRequestError, UnknownVersionError, VersionConflictError
from tests.stubs.records import ENCODER, HIDDEN, TASK, record, step
from tests.stubs.schema import differences, migrate_in_processes
from tests.stubs.sessions import session_on


@pytest.fixture
def decisions(database: Database) -> Decisions:
    return Decisions(database, Callers(database))


def said(
    decision_id: int, request_id: str = "r-1", caller: str = "c" * 64, **values: object
) -> FeedbackRecord:
    given = {"correct_task": None, "correct_label": None, "score": 1.0, "at": 2000.0} | values
    return FeedbackRecord(request_id, caller, decision_id, **given)  # type: ignore[arg-type]


def test_models_and_migrations_agree(url: str) -> None:
    migrate(read_url(url))
    assert differences(read_url(url)) == []


def test_processes_that_start_at_once_do_not_collide(url: str) -> None:
    assert migrate_in_processes(url, 4) == []
    assert differences(read_url(url)) == []


async def test_callers_hashes_are_stable_and_belong_to_the_database(database: Database) -> None:
    first, second = Callers(database), Callers(database)
    one, same, other = await asyncio.gather(first.hash_of("a"), second.hash_of("a"), first.hash_of("b"))
    assert one == same != other
    assert len(one) == 64


async def test_a_decision_is_found_own_first_then_newest(decisions: Decisions, database: Database) -> None:
    mine, theirs = "address:192.0.2.1", "address:192.0.2.2"
    await decisions.add([record(caller=mine), record(caller=theirs), record(caller=theirs, task=None)])
    callers = Callers(database)
    own = await decisions.find("r-1", await callers.hash_of(mine))
    assert own is not None
    assert own.task == TASK
    newest = await decisions.find("r-1", await callers.hash_of("address:192.0.2.3"))
    assert newest is not None
    assert newest.task is None
    assert await decisions.find("r-2", "c") is None
    async with session_on(database) as session:
        stored = set(await session.scalars(select(Decision.caller)))
    assert len(stored) == 2
    assert not any("192.0.2." in caller for caller in stored)


async def test_old_decisions_are_forgotten_and_their_feedback_stays(
    decisions: Decisions, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.purging.PURGE_ROWS", 3)
    await decisions.add([record(f"r-{i}", created_at=float(i)) for i in range(10)])
    found = await decisions.find("r-0", "c")
    assert found is not None
    await FeedbackRows(database).put(said(found.id, "r-0"))
    assert await decisions.purge(before=8.0) == 8
    assert await decisions.purge(before=8.0) == 0
    async with session_on(database) as session:
        assert list(await session.scalars(select(Decision.request_id))) == ["r-8", "r-9"]
        row = (await session.scalars(select(Feedback))).one()
    assert (row.request_id, row.decision_id, row.score) == ("r-0", None, 1.0)


async def test_feedback_goes_once_it_is_old_and_its_decision_gone(
    decisions: Decisions, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.purging.PURGE_ROWS", 2)
    await decisions.add([record(f"r-{i}", created_at=float(i)) for i in range(8)])
    rows = FeedbackRows(database)
    for i in range(8):
        found = await decisions.find(f"r-{i}", "c")
        assert found is not None
        await rows.put(said(found.id, f"r-{i}", at=20.0 if i == 4 else 7.5))
    await decisions.purge(before=6.0)
    assert await rows.purge(before=10.0) == 5
    assert await rows.purge(before=10.0) == 0
    async with session_on(database) as session:
        left = list(await session.scalars(select(Feedback.request_id).order_by(Feedback.id)))
    assert left == ["r-4", "r-6", "r-7"]


async def test_the_same_callers_next_feedback_replaces_the_first(
    decisions: Decisions, database: Database
) -> None:
    await decisions.add([record()])
    found = await decisions.find("r-1", "c")
    assert found is not None
    rows = FeedbackRows(database)
    assert not await rows.put(said(found.id))
    assert await rows.put(said(found.id, correct_label="neutral", score=None, at=3000.0))
    assert not await rows.put(said(found.id, caller="d" * 64))
    async with session_on(database) as session:
        mine = (await session.scalars(select(Feedback).where(Feedback.caller == "c" * 64))).one()
        assert await session.scalar(select(func.count()).select_from(Feedback)) == 2
    assert (mine.correct_label, mine.score, mine.created_at, mine.updated_at) == ("neutral", None, 2000, 3000)


async def test_the_same_feedback_many_times_at_once_is_one_row(
    decisions: Decisions, database: Database
) -> None:
    await decisions.add([record()])
    found = await decisions.find("r-1", "c")
    assert found is not None
    rows = FeedbackRows(database)
    await asyncio.gather(*(rows.put(said(found.id, score=i / 10)) for i in range(10)))
    async with session_on(database) as session:
        assert await session.scalar(select(func.count()).select_from(Feedback)) == 1


async def test_feedback_on_a_decision_that_is_gone(database: Database) -> None:
    with pytest.raises(UnknownRequestError):
        await FeedbackRows(database).put(said(99))


async def test_replay_gives_arrays_newest_first_with_a_cap_for_each_caller(
    decisions: Decisions, database: Database
) -> None:
    faulted = step(
        action="expert:big", label=None, confidence=0.0, margin=0.0, accepted=False, fault="no-worker"
    )
    special = {
        "r-3": record("r-3", description_vector=None, task_probabilities={"a/b": 0.5}, none_probability=0.5),
        "r-4": record(
            "r-4", observations=[faulted, step()], fault="no-worker", router_version=7, via="expert"
        ),
        "r-5": record("r-5", encoder="another"),
    }
    await decisions.add([special.get(f"r-{i}", record(f"r-{i}")) for i in range(6)])
    rows = FeedbackRows(database)
    for i in range(6):
        found = await decisions.find(f"r-{i}", "c")
        assert found is not None
        caller = "d" * 64 if i == 0 else "c" * 64
        score = None if i == 3 else i / 8
        label = "positive" if i == 3 else None
        await rows.put(
            said(found.id, f"r-{i}", caller, score=score, correct_label=label, at=float(100 - 10 * i))
        )
    await decisions.add([record("unjudged")])
    replay = ReplayRows(database)
    found_all = await replay.replay(encoder=ENCODER, hidden=HIDDEN, limit=100, per_caller=100)
    assert found_all.request_id == ("r-0", "r-1", "r-2", "r-3", "r-4")
    assert found_all.judged_at.tolist() == [100, 90, 80, 70, 60]
    assert found_all.description.dtype == np.float32
    assert found_all.description[:, 0].tolist() == [0.5, 0.5, 0.5, 0.0, 0.5]
    assert found_all.text.shape == (5, HIDDEN)
    assert found_all.tasks == (TASK, "social/tone", "a/b")
    assert found_all.task_probability[3].tolist() == [0, 0, 0.5]
    np.testing.assert_allclose(found_all.task_probability.sum(1) + found_all.none_probability, 1, atol=1e-6)
    assert found_all.router_version == (None, None, None, None, 7)
    assert found_all.via == ("auto", "auto", "auto", "auto", "expert")
    assert found_all.fault[4] == "no-worker"
    assert found_all.label(4) == "positive"
    assert found_all.steps[4][0].fault == "no-worker"
    np.testing.assert_allclose(found_all.quality(), [0, 0.125, 0.25, 1, 0.5])
    capped = await replay.replay(encoder=ENCODER, hidden=HIDDEN, limit=100, per_caller=2)
    assert capped.request_id == ("r-0", "r-1", "r-2")
    limited = await replay.replay(encoder=ENCODER, hidden=HIDDEN, limit=2, per_caller=100)
    assert limited.request_id == ("r-0", "r-1")
    late = await replay.replay(encoder=ENCODER, hidden=HIDDEN, limit=9, per_caller=9, since=80.0)
    assert late.request_id == ("r-0", "r-1")
    none = await replay.replay(encoder="new", hidden=HIDDEN, limit=9, per_caller=9)
    assert (len(none), none.description.shape, none.quality().shape) == (0, (0, HIDDEN), (0,))


async def test_versions_are_promoted_and_taken_back(database: Database) -> None:
    versions = RouterVersions(database)
    assert await versions.live() is None
    with pytest.raises(VersionConflictError):
        await versions.rollback()

    async def add(parent: int | None) -> int:
        return await versions.add(
            b"\x00weights", meta={"encoder": ENCODER}, metrics={"accuracy": 0.9}, parent_id=parent, at=1.0
        )

    first = await add(None)
    second, third = await add(first), await add(first)
    await versions.promote(first, at=10.0)
    promoted = await versions.promote(second, at=20.0)
    assert (promoted.state, promoted.promoted_at, promoted.parent_id) == ("live", 20.0, first)
    await versions.reject(third, metrics={"accuracy": 0.1})
    live = await versions.live()
    assert live == promoted
    assert await versions.weights(second) == b"\x00weights"
    assert [(v.id, v.state) for v in await versions.list()] == [
        (third, "rejected"), (second, "live"), (first, "retired"),
    ]  # fmt: skip
    assert (await versions.list(1))[0].metrics == {"accuracy": 0.1}
    back = await versions.rollback()
    assert back is not None
    assert (back.id, back.state) == (first, "live")
    await versions.promote(third, at=30.0)
    back = await versions.rollback()
    assert back is not None
    assert back.id == first  # never the second, which was taken back
    assert await versions.rollback() is None
    assert await versions.live() is None
    with pytest.raises(VersionConflictError, match="the package's own router is live by now, not version 2"):
        await versions.promote(first, at=40.0, over=second)
    await versions.promote(first, at=40.0, over=None)
    await versions.promote(first, at=50.0)
    assert [v.state for v in await versions.list()].count("live") == 1
    for unknown in (versions.promote(99, at=1.0), versions.weights(99), versions.reject(99)):
        with pytest.raises(UnknownVersionError):
            await unknown


async def test_promotions_at_once_leave_one_live(database: Database) -> None:
    versions = RouterVersions(database)
    made = [await versions.add(b"w", meta={}, metrics={}, parent_id=None, at=1.0) for _ in range(5)]
    done = await asyncio.gather(*(versions.promote(v, at=2.0) for v in made), return_exceptions=True)
    assert all(not isinstance(d, BaseException) or isinstance(d, VersionConflictError) for d in done)
    assert [v.state for v in await versions.list()].count("live") == 1


async def test_a_version_that_is_live_no_more_is_not_ended(database: Database) -> None:
    versions = RouterVersions(database)
    seen, other = [await versions.add(b"w", meta={}, metrics={}, parent_id=None, at=1.0) for _ in range(2)]
    await versions.promote(seen, at=1.0)
    await versions.promote(other, at=2.0)  # as by another process, between our look and our change
    with pytest.raises(VersionConflictError):
        await database.write(lambda session: router_versions._end(session, seen, "rejected"))
    assert [(v.id, v.state) for v in await versions.list()] == [(other, "live"), (seen, "retired")]


async def test_items_of_a_job_that_is_gone_are_refused_without_their_texts(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StorageError) as refused:
        await Jobs(database).append("gone", 0, ['{"text":"my secret"}'])
    assert "secret" not in str(refused.value.__cause__)
    assert "secret" not in caplog.text


async def test_the_tables_keep_their_rules(database: Database) -> None:
    job = {
        "id": "j", "owner": "o", "idempotency_key": "k", "state": "queued", "total": 2, "created_at": 1.0,
    }  # fmt: skip
    item = {"job_id": "j", "item_index": 0, "request_json": "{}"}

    async def put(table: type[Job] | type[JobItem], row: dict[str, object]) -> None:
        await database.write(lambda session: session.execute(insert(table).values(**row)))

    await put(Job, job)
    await put(JobItem, item)
    for table, wrong in (
        (Job, job | {"id": "j2"}),
        (Job, job | {"id": "j2", "owner": "p", "state": "odd"}),
        (Job, job | {"id": "j2", "owner": "p", "done": 3}),
        (JobItem, item),
        (JobItem, item | {"job_id": "nobody's"}),
    ):
        with pytest.raises(IntegrityError):
            await put(table, wrong)
    await put(Job, job | {"id": "j2", "idempotency_key": None})
    await put(Job, job | {"id": "j3", "idempotency_key": None})
