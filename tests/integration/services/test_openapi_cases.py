"""Generated requests against both OpenAPI documents: nothing undeclared is answered, and no fault of ours.

A few hundred cases by default, `--full` for 5,000 and more.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy, booleans, sampled_from
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.asgi.access import ANY, OPEN, need_of
from tests.stubs import files
from tests.stubs.processes import Process, Stage
from tests.unit.mole.test_command import mole

pytestmark = [
    pytest.mark.slow,
    # Of its own dependencies; what it warns of is none of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
CASES = {False: 300, True: 5000}
"""Over both documents, without and with --full; half as many with keys."""
SCOPE = "classify"
Seen = Counter[tuple[str, int]]
"""How often an operation answered with a status."""
INTENDED = (502, 503, 504)
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def services(shared_stage: Stage) -> dict[str, Process]:
    worker = shared_stage.worker()
    files.write(shared_stage.folder, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")
    coordinator = shared_stage.coordinator()
    coordinator.wait_for("/api/v1/health/ready")
    coordinator.wait_healthy()
    return {"worker": worker, "coordinator": coordinator}


def name_a_task(body: object) -> None:
    """What is generated names no task that there is, and would never come further than to a 400."""
    if not isinstance(body, dict):
        return
    if "task_key" in body:
        body["task_key"] = files.SENTIMENT
    if "model" in body:
        body["model"] = f"mole/{files.SENTIMENT}"
    options = body.get("options")
    if isinstance(options, dict) and "task" in options:
        options["task"] = files.SENTIMENT


def judged(
    cases: SearchStrategy[schemathesis.Case], url: str, examples: int, seen: Seen, keys: list[str]
) -> None:
    """Sends so many cases, each with one of the keys where there are any, and judges each answer."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=booleans(), key=sampled_from(keys or [""]))
    def judge(case: schemathesis.Case, known: bool, key: str) -> None:
        if known:
            name_a_task(case.body)
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else None)
        seen[case.operation.label, answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code in INTENDED, answer.text
        case.validate_response(answer, checks=CONFORMANCE)
        assert "x-request-id" in answer.headers
        if answer.status_code == 429 or answer.status_code >= 500:
            assert "retry-after" in answer.headers

    judge()


def judge_all(process: Process, least: int, keys: list[str]) -> Seen:
    """Judges so many cases or more over all operations; how often which was answered how."""
    schema = schemathesis.openapi.from_url(process.url + "/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = sum(operation.method == "post" for operation in operations)
    seen: Seen = Counter()
    for operation in operations:
        # A GET here has nothing to vary.
        modes = (
            [*schemathesis.GenerationMode]
            if operation.method == "post"
            else [schemathesis.GenerationMode.POSITIVE]
        )
        for mode in modes:
            examples = least // (posts * len(modes)) + 5
            judged(operation.as_strategy(generation_mode=mode), process.url, examples, seen, keys)
    print(f"\n{sum(seen.values())} cases: {dict(sorted(seen.items()))}")
    assert sum(seen.values()) >= least
    return seen


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("service", ["worker", "coordinator"])
def test_every_answer_is_declared(services: dict[str, Process], service: str, full: bool) -> None:
    judge_all(services[service], CASES[full] // 2, [])


@pytest.mark.timeout(3600)
def test_a_limited_key_reaches_what_its_scope_says(
    services: dict[str, Process], shared_stage: Stage, tmp_path: Path, full: bool
) -> None:
    database = f"sqlite:///{tmp_path}/keyed.sqlite3"
    given = {"DATABASE_URL": database, "MOLE_REQUIRE_API_KEY": "true"}
    coordinator = shared_stage.coordinator(**given)
    coordinator.wait_for("/api/v1/health/ready")
    keys = [made(database), made(database, "--rate-per-minute", "1")]
    coordinator.wait_for("/api/v1/workers", headers={"Authorization": f"Bearer {keys[0]}"})
    seen = judge_all(coordinator, CASES[full] // 2, [*keys, "mole_of_nobody"])
    for operation, status in seen:
        method, path = operation.split()
        if need_of(method, path) not in (OPEN, ANY, SCOPE):
            assert status in (401, 403), operation
    assert {401, 403, 429} <= {status for _, status in seen}
    assert seen["POST /api/v1/classify", 200] > 0


def made(database: str, *limits: str) -> str:
    """A new key that may classify and nothing else."""
    done = mole("keys", "create", "limited", "--scope", SCOPE, *limits, "--json", "--database", database)
    return str(json.loads(done.stdout)["key"])
