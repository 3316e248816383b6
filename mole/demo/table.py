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
    table.add_column("route", ratio=4, overflow="fold")
    table.add_column("answer", ratio=3, overflow="fold")
    for name in STEPS if wide else ("ms",):
        table.add_column(f"{name} ms" if wide else name, justify="right" if wide else "left", overflow="fold")
    for number, outcome in enumerate(outcomes, start=1):
        table.add_row(str(number), *_row(outcome, wide))
    return table


def _row(outcome: Outcome, wide: bool) -> list[str]:
    from rich.markup import escape

    fields = "".join(f"\n[dim]{escape(f'{k}: {v}')}[/dim]" for k, v in outcome.case.fields.items())
    asked = f"{escape(outcome.case.text)}{fields}\n[dim]{escape(outcome.case.description or '')}[/dim]"
    if outcome.answer is None:
        return [
            asked,
            "",
            f"[bold red]failed[/bold red]\n{escape(outcome.error or '')}",
            *([""] * (6 if wide else 1)),
        ]
    return [asked, escape(route_of(outcome.answer)), _answer(outcome.answer), *_times(outcome.answer, wide)]


def route_of(answer: ClassifyAnswer) -> str:
    """Language → domain → task → expert on worker, each with its probability."""
    parts = []
    for step in answer.routing_path:
        choice = step.choice or "none"
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


def _times(answer: ClassifyAnswer, wide: bool) -> list[str]:
    times = [f"{getattr(answer.timings_ms, name):.1f}" for name in STEPS]
    if wide:
        return times
    return ["\n".join(f"{name} {ms}" for name, ms in zip(STEPS, times, strict=True))]
