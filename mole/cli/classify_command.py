"""`mole classify`: one request, its answer as a table or JSON."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mole.cli.console import CommandError, ExitCode, client_for, out, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from moe_router.contracts import ClassifyAnswer


@dataclass(frozen=True, slots=True)
class ClassifyArguments:
    """What the command line says."""

    text: str
    description: str | None
    task: str | None
    language: str | None
    fields: list[str]
    probabilities: bool
    as_json: bool
    url: str | None


def run_classify(arguments: ClassifyArguments) -> None:
    """Sends the request and prints the answer."""
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    with client_for(arguments.url) as client:
        answer = client.classify(
            text,
            arguments.description,
            fields=_fields(arguments.fields),
            task=arguments.task,
            language=arguments.language,
            return_probabilities=arguments.probabilities or None,
        )
    if arguments.as_json:
        print_json(answer.model_dump_json(indent=2))
    else:
        out().print(answer_table(answer))


def _fields(pairs: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--field takes NAME=VALUE, not {pair!r}", ExitCode.USAGE)
        found[name] = value
    return found or None


def answer_table(answer: ClassifyAnswer) -> Table:
    """The answer for people: result first, then the route and the times."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(answer):
        table.add_row(name, Text(value))
    return table


def _rows(answer: ClassifyAnswer) -> list[tuple[str, str]]:
    rows = [("result", answer.result if answer.result is not None else "none: MoLE abstained")]
    if answer.abstained is not None:
        rows.append(("reason", f"{answer.abstained.reason}: {answer.abstained.detail}"))
        if answer.abstained.nearest_tasks:
            rows.append(("nearest", ", ".join(answer.abstained.nearest_tasks)))
    rows.append(("confidence", f"{answer.confidence:.3f}"))
    rows += [
        ("", f"{e.type}: {e.value} [{e.start}:{e.end}] {e.confidence:.2f}") for e in answer.entities or []
    ]
    ranked = sorted((answer.probabilities or {}).items(), key=lambda pair: -pair[1])
    rows += [
        ("probabilities" if not index else "", f"{p:.3f}  {label}") for index, (label, p) in enumerate(ranked)
    ]
    rows.append(("task", answer.task or "none"))
    for index, step in enumerate(answer.routing_path):
        sure = f"  {step.probability:.2f}" if step.probability is not None else ""
        rows.append(
            ("route" if not index else "", f"{step.step}: {step.choice or 'none'}{sure}  ({step.ms:.1f} ms)")
        )
    if answer.worker_id is not None:
        rows.append(("worker", f"{answer.worker_id} ({answer.model_key})"))
    rows.append(("time", f"{answer.processing_time_ms:.1f} ms"))
    rows.append(("request id", answer.request_id))
    return rows
