"""`mole workers` and `mole tasks`: who serves, and what can be asked."""

from __future__ import annotations

from collections.abc import Sequence

from mole.cli.console import client_for, out, print_json

MOST_LABELS = 20
"""of a task are printed"""


def run_workers(url: str | None, as_json: bool) -> None:
    """Prints the workers, and why the mapping's last edit is refused where it is."""
    with client_for(url) as client:
        found = client.workers()
    if as_json:
        print_json(found.model_dump_json(indent=2))
        return
    for worker in found.workers:
        latency = [
            f"{ms:.0f} ms" if ms is not None else "-" for ms in (worker.latency_ms.p50, worker.latency_ms.p95)
        ]
        why = f": {worker.reason}" if worker.reason else ""
        until = f" until {worker.until}" if worker.until else ""
        _say(f"{worker.worker_id}  {worker.state}{why}{until}")
        _say(f"  {worker.model_key} at {worker.url}")
        queue = worker.queue_depth if worker.queue_depth is not None else "-"
        _say(f"  outstanding {worker.outstanding}, queue {queue}, p50 {latency[0]}, p95 {latency[1]}")
        _say(f"  {', '.join(worker.tasks) or 'no tasks'}")
    if not found.workers:
        _say("the mapping names no workers")
    if found.mapping.refused is not None:
        _say(
            f"the mapping's last edit ({found.mapping.refused.at}) is refused: {found.mapping.refused.error}"
        )


def run_tasks(url: str | None, as_json: bool) -> None:
    """Prints the tasks with their labels."""
    with client_for(url) as client:
        found = client.tasks()
    if as_json:
        print_json("[" + ",\n ".join(task.model_dump_json() for task in found) + "]")
        return
    for task in found:
        _say(f"{task.task_key}{'' if task.available else '  (no worker serves it)'}")
        if task.description:
            _say(f"  {task.description}")
        _say(f"  labels: {_labels(task.labels)}")
        _say(f"  languages: {', '.join(task.languages) if task.languages is not None else 'every one'}")


def _labels(labels: Sequence[str]) -> str:
    """All of them, or the first ones and how many there are."""
    if len(labels) <= MOST_LABELS:
        return ", ".join(labels) or "any"
    return f"{', '.join(labels[:MOST_LABELS])} and {len(labels) - MOST_LABELS} more (--json lists all)"


def _say(line: str) -> None:
    out().print(line, markup=False, soft_wrap=True)
