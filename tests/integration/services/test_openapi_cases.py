"""Generated requests against both OpenAPI documents: nothing undeclared is answered, and no fault of ours.

A few hundred cases by default, `--full` for 5,000 and more.
"""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy, booleans
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.stubs import files
from tests.stubs.processes import Process, Stage

pytestmark = [
    pytest.mark.slow,
    # Of its own dependencies; what it warns of is none of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
CASES = {False: 300, True: 5000}
"""Over both documents, without and with --full."""
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


def judged(cases: SearchStrategy[schemathesis.Case], url: str, examples: int, seen: Counter[str]) -> None:
    """Sends so many cases and judges each answer."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=booleans())
    def judge(case: schemathesis.Case, known: bool) -> None:
        if known:
            name_a_task(case.body)
        answer = case.call(base_url=url)
        seen[f"{case.operation.label} {answer.status_code}"] += 1
        assert answer.status_code < 500 or answer.status_code in INTENDED, answer.text
        case.validate_response(answer, checks=CONFORMANCE)
        assert "x-request-id" in answer.headers
        if answer.status_code == 429 or answer.status_code >= 500:
            assert "retry-after" in answer.headers

    judge()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("service", ["worker", "coordinator"])
def test_every_answer_is_declared(services: dict[str, Process], service: str, full: bool) -> None:
    process = services[service]
    schema = schemathesis.openapi.from_url(process.url + "/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = sum(operation.method == "post" for operation in operations)
    seen: Counter[str] = Counter()
    for operation in operations:
        # A GET here has nothing to vary.
        modes = (
            [*schemathesis.GenerationMode]
            if operation.method == "post"
            else [schemathesis.GenerationMode.POSITIVE]
        )
        for mode in modes:
            examples = CASES[full] // (2 * posts * len(modes)) + 5
            judged(operation.as_strategy(generation_mode=mode), process.url, examples, seen)
    print(f"\n{sum(seen.values())} cases: {dict(sorted(seen.items()))}")
    assert sum(seen.values()) >= CASES[full] // 2
