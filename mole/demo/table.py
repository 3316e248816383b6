"""The demo's requests and answers as a table that fits the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from moe_router.contracts import ClassifyAnswer
    from mole.demo.cases import Case

WIDE = 150
"""From this many columns on, each step's time has a column of its own."""
STEPS = ("language", "encode", "domain", "task", "worker", "total")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request, and its answer or why there is none."""

    case: Case
    answer: ClassifyAnswer | None
    error: str | None = None


def outcome_table(outcomes: list[Outcome], width: int) -> Table:
    """The table for a terminal of so many columns."""
    from rich.table import Table

    wide = width >= WIDE
    table = Table(show_lines=True, expand=wide)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("text and question", ratio=4, overflow="fold")
    if wide:
        table.add_column("route", ratio=4, overflow="fold")
        table.add_column("answer", ratio=3, overflow="fold")
        for name in STEPS:
            table.add_column(f"{name} ms", justify="right")
    else:
        table.add_column("answer, route, milliseconds", ratio=6, overflow="fold")
    for number, outcome in enumerate(outcomes, start=1):
        cells = _cells(outcome)
        if not wide:
            cells = [
                cells[0],
                "\n".join(part for part in (cells[2], cells[1], _on_one_line(cells[3:])) if part),
            ]
        table.add_row(str(number), *cells)
    return table


def _cells(outcome: Outcome) -> list[str]:
    """Text and question, route, answer, and the time of each step."""
    from rich.markup import escape

    fields = "".join(f"\n[dim]{escape(f'{k}: {v}')}[/dim]" for k, v in outcome.case.fields.items())
    asked = f"{escape(outcome.case.text)}{fields}\n[dim]{escape(outcome.case.description or '')}[/dim]"
    answer = outcome.answer
    if answer is None:
        return [asked, "", f"[bold red]failed[/bold red] {escape(outcome.error or '')}"]
    times = [f"{getattr(answer.timings_ms, name):.1f}" for name in STEPS]
    return [asked, escape(route_of(answer)), _answer(answer), *times]


def _on_one_line(times: list[str]) -> str:
    return " · ".join(f"{name} {ms}" for name, ms in zip(STEPS, times, strict=False))


def route_of(answer: ClassifyAnswer) -> str:
    """Language → domain → task → expert on worker, each with its probability."""
    parts = []
    for step in answer.routing_path:
        if step.choice is None:  # how likely the likeliest one is tells nothing about there being none
            parts.append(f"no {step.step}")
            continue
        choice = step.choice
        if step.step == "task":
            choice = choice.rpartition("/")[2]
        if step.step == "expert" and answer.worker_id is not None:
            choice = f"{choice} on {answer.worker_id}"
        parts.append(choice if step.probability is None else f"{choice} {step.probability:.2f}")
    return " → ".join(parts)


def _answer(answer: ClassifyAnswer) -> str:
    from rich.markup import escape

    if answer.abstained is not None:
        return f"[yellow]abstained[/yellow]: {escape(answer.abstained.reason)}"
    shown = f"[bold]{escape(answer.result or '')}[/bold] {answer.confidence:.2f}"
    found = [f"{escape(entity.type)}: {escape(entity.value)}" for entity in answer.entities or []]
    return "\n".join([shown, *found])
