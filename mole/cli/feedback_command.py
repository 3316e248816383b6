"""`mole feedback`: what the right answer would have been."""

from __future__ import annotations

from dataclasses import dataclass

from mole.cli.console import CommandError, ExitCode, client_for, out, print_json


@dataclass(frozen=True, slots=True)
class FeedbackArguments:
    """What the command line says."""

    request_id: str
    task: str | None
    label: str | None
    score: float | None
    as_json: bool
    url: str | None


def run_feedback(arguments: FeedbackArguments) -> None:
    """Sends the feedback and prints the receipt."""
    if arguments.task is None and arguments.label is None and arguments.score is None:
        raise CommandError("say what was right: --task, --label or --score", ExitCode.USAGE)
    with client_for(arguments.url) as client:
        receipt = client.feedback(
            arguments.request_id,
            correct_task=arguments.task,
            correct_label=arguments.label,
            score=arguments.score,
        )
    if arguments.as_json:
        print_json(receipt.model_dump_json(indent=2))
        return
    replaced = "; it replaces your earlier one" if receipt.replaced else ""
    out().print(f"feedback on {receipt.request_id} is stored{replaced}", markup=False, soft_wrap=True)
