from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from app.services.course import Course
from app.services.ports import Call
from app.services.recording import label_key, recorded
from app.storage.records import DecisionRecord
from moe_router.contracts import ClassifyOptions, ClassifyRequest
from moe_router.errors import AbstainedError, NoWorkerError, WorkerAnswerError
from moe_router.gating.task_router import Action, Observation, Via
from tests.stubs import files
from tests.stubs.gating import NOTHING_FITS, StubGating
from tests.stubs.serving import registry

REQUEST = ClassifyRequest(text="a secret text", description="a secret question")
FIN = registry().all_experts(files.SENTIMENT)[0]


async def decide(description: str | None = "a secret question", task: str | None = None) -> Course:
    gating = StubGating(registry())
    decision = await gating.decide(
        "a secret text", description, language=None, task=task, via="auto", served=lambda _: True
    )
    return Course(decision, [])


async def run(
    course: Course,
    error: BaseException | None = None,
    *,
    late: bool = False,
    request: ClassifyRequest = REQUEST,
) -> DecisionRecord:
    found: list[DecisionRecord] = []
    call = Call("r-1", time.monotonic() + (-1 if late else 100), caller="address:192.0.2.1")
    task = registry().tasks.get(course.decision.task or "")
    try:
        with recorded(course, request, call, task, found.append):
            if error is not None:
                raise error
    except BaseException as raised:
        if raised is not error:
            raise
    assert not found, "the answer comes first"
    await asyncio.sleep(0)
    (record,) = found
    return record


async def test_an_answer_is_recorded_without_the_text() -> None:
    course = await decide()
    ask = Action("expert", FIN)
    course.actions, course.observations = [ask], [Observation(ask, "positive", 0.75, 0.5)]
    course.final = Action("accept", FIN, 0)
    record = await run(course)
    assert (record.request_id, record.caller, record.task) == ("r-1", "address:192.0.2.1", files.SENTIMENT)
    assert (record.action, record.propensity, record.fault, record.task_fixed) == (
        "expert:fin",
        1,
        None,
        False,
    )
    assert record.observations == [
        {
            "action": "expert:fin",
            "label": "positive",
            "confidence": 0.75,
            "margin": 0.5,
            "pooled": False,
            "cost": 1.0,
            "accepted": True,
            "fault": None,
        }
    ]
    assert record.description_vector is not None
    np.testing.assert_array_equal(np.frombuffer(record.description_vector, "<f2"), [0.5] * 4)
    assert record.task_probabilities == {files.SENTIMENT: 1.0}
    assert "secret" not in repr(record)


async def test_the_propensity_is_that_of_all_actions_and_the_accepted_answer_is_marked() -> None:
    course = await decide()
    probe, ask = Action("probe", propensity=0.5), Action("expert", FIN, propensity=0.25)
    course.actions = [probe, ask]
    course.observations = [Observation(probe, "neutral", 0.5), Observation(ask, "positive", 0.4)]
    course.final = Action("accept", None, 0, propensity=0.8)
    record = await run(course)
    assert record.propensity == pytest.approx(0.1)
    assert [s["accepted"] for s in record.observations] == [True, False]


@pytest.mark.parametrize("via", ["auto", "expert", "probe"])
async def test_whether_the_probe_might_answer_is_recorded(via: Via) -> None:
    gating = StubGating(registry())
    decision = await gating.decide(
        "a text", None, language=None, task=None, via=via, served=lambda _: True
    )  # fmt: skip
    assert (await run(Course(decision, []))).via == via


async def test_what_was_heard_together_is_told_apart() -> None:
    course = await decide()
    probe, ask = Action("probe"), Action("expert", FIN)
    course.actions = [probe, ask]
    course.observations = [Observation(probe, "neutral", 0.5), Observation(ask, "positive", 0.4, pooled=True)]
    course.final = Action("accept", FIN, 1)
    record = await run(course)
    assert [(s["pooled"], s["accepted"]) for s in record.observations] == [(False, False), (True, True)]


async def test_a_fault_is_kept_apart_from_what_was_answered() -> None:
    course = await decide()
    probe, ask = Action("probe"), Action("expert", FIN)
    course.actions, course.fault = [ask, probe], WorkerAnswerError("rubbish")
    course.observations = [Observation(probe, "neutral", 0.5, 0.25)]
    record = await run(course)
    assert record.fault == "bad-worker-answer"
    assert record.action == "expert:fin"
    assert [(s["action"], s["label"], s["fault"]) for s in record.observations] == [
        ("expert:fin", None, "bad-worker-answer"),
        ("probe", "neutral", None),
    ]


@pytest.mark.parametrize(
    ("error", "late", "fault"),
    [
        (NoWorkerError("none"), False, "no-worker"),
        (asyncio.CancelledError(), True, "deadline-exceeded"),
        (asyncio.CancelledError(), False, "cancelled"),
    ],
)
async def test_a_request_that_failed_has_a_fault_and_no_label(
    error: BaseException, late: bool, fault: str
) -> None:
    course = await decide()
    course.actions = [Action("expert", FIN)]
    record = await run(course, error, late=late)
    assert record.fault == fault
    assert [s["label"] for s in record.observations] == [None]


async def test_an_abstention_is_no_fault_even_where_it_is_an_error() -> None:
    course = await decide(NOTHING_FITS)
    record = await run(course, AbstainedError("out_of_scope", "x", ()))
    assert (record.fault, record.abstained, record.task, record.action) == (None, "out_of_scope", None, None)


async def test_a_task_that_the_caller_fixed_is_marked() -> None:
    request = REQUEST.model_copy(update={"options": ClassifyOptions(task=files.SENTIMENT)})
    assert (await run(await decide(task=files.SENTIMENT), request=request)).task_fixed


async def test_what_cannot_be_recorded_is_answered_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_record: DecisionRecord) -> None:
        raise ValueError("no")

    course, answered = await decide(), False
    with recorded(course, REQUEST, Call("r-1", time.monotonic() + 9), None, broken):
        answered = True
    assert answered
    await asyncio.sleep(0)
    assert "r-1 cannot be recorded" in caplog.text
    assert "secret" not in caplog.text
    with recorded(course, REQUEST, Call("r-1", time.monotonic() + 9), None, None):
        pass


def test_only_labels_of_the_task_are_kept_as_they_are() -> None:
    task = registry().task(files.SENTIMENT)
    assert label_key("positive", task) == "positive"
    assert label_key(None, task) is None
    free = label_key("what the caller wrote", task)
    assert free is not None
    assert free.startswith("sha256:")
    assert free == label_key("what the caller wrote", None)
    assert label_key("entities", registry().task(files.PII)) == "entities"
