"""The `mole` command: its subcommands' options; what they do is imported when they run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mole.cli import (
    config_command,
    evaluate_command,
    jobs_command,
    keys_command,
    models_command,
    router_command,
    serve_command,
    train_command,
)
from mole.cli.console import ExitCode

EXIT_CODES = (
    "Exit codes: 0 done; 1 it did not succeed; 2 wrong usage; 3 no MoLE service answers; 130 interrupted."
)

app = typer.Typer(
    name="mole",
    help="Classify text in many languages with a fleet of language experts.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(serve_command.app, name="serve")
app.add_typer(jobs_command.app, name="jobs")
app.add_typer(models_command.app, name="models")
app.add_typer(config_command.app, name="config")
app.add_typer(train_command.app, name="train")
app.add_typer(evaluate_command.app, name="evaluate")
app.add_typer(router_command.app, name="router")
app.add_typer(keys_command.app, name="keys")

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The coordinator. [default: $MOLE_URL or :8000]")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mole {version('mole-router')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an unexpected error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Read by `main` from the command line itself, as an error may come before they are parsed."""


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the table.")] = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The coordinator's port, if free; else another one.")
    ] = 8000,
    worker_port: Annotated[
        int, typer.Option(min=1, max=65535, help="The worker's port, if free; else another one.")
    ] = 8001,
    cache: Annotated[
        Path | None, typer.Option(help="Where the models are kept. [default: $MOLE_CACHE_DIR]")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print requests and answers as JSON Lines.")
    ] = False,
) -> None:
    """Start a worker and a coordinator on the embedded models, and ask them in many languages."""
    from mole.demo.run import DemoOptions, run_demo

    run_demo(DemoOptions(once, port, worker_port, cache, json_output))


@app.command()
def classify(
    text: Annotated[str, typer.Argument(help="The text; `-` reads it from standard input.")],
    description: Annotated[
        str | None, typer.Option("--description", "-d", help="What to find out, in any language.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="DOMAIN/TASK", help="Fix the task.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", metavar="CODE", help="Fix the text's language.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A further field of the prompt.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", "-p", help="Show the whole distribution.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    url: Url = None,
) -> None:
    """Classify one text by a running MoLE service."""
    from mole.cli.classify_command import ClassifyArguments, run_classify

    run_classify(
        ClassifyArguments(text, description, task, language, field or [], probabilities, json_output, url)
    )


@app.command()
def feedback(
    request_id: Annotated[str, typer.Argument(help="Of the answer that is judged.")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="DOMAIN/TASK", help="The task that was asked for.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="The label that is right.")] = None,
    score: Annotated[
        float | None, typer.Option("--score", min=0.0, max=1.0, help="How good the answer was.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
    url: Url = None,
) -> None:
    """Tell a running MoLE service what the right answer would have been."""
    from mole.cli.feedback_command import FeedbackArguments, run_feedback

    run_feedback(FeedbackArguments(request_id, task, label, score, json_output, url))


@app.command()
def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Tell what this machine can run."""
    from mole.cli.doctor_command import run_doctor

    run_doctor(json_output)


def main() -> None:
    """Entry point: runs the command; an error ends it with one line and its exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:  # the outermost border: nothing passes it as a trace
        if "--debug" in sys.argv[1:]:
            raise
        from mole.cli.console import err
        from mole.cli.errors import explain

        shown = explain(error)
        err().print(f"mole: {shown}", markup=False, soft_wrap=True)
        sys.exit(shown.exit_code)


if __name__ == "__main__":
    main()
