"""The `mole` command: its subcommands' options; what they do is imported when they run."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from mole.cli import (
    asking,
    config_command,
    evaluate_command,
    jobs_command,
    keys_command,
    models_command,
    router_command,
    serve_command,
    train_command,
)
from mole.cli.completion_command import COMPLETE, Shell
from mole.cli.console import ExitCode, err, leave

EXIT_CODES = (
    "Exit codes: 0 done; 1 it did not succeed; 2 wrong usage; 3 no MoLE service answers; 130 interrupted."
)

app = typer.Typer(
    name="mole",
    help="Classify text in many languages with a fleet of language experts.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,  # `mole completion` prints the script, without guessing the shell
    rich_markup_mode=None,  # plain help: no boxes, legible on 60 columns and in a pipe, quicker to come
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
asking.register(app)
app.add_typer(serve_command.app, name="serve")
app.add_typer(jobs_command.app, name="jobs")
app.add_typer(models_command.app, name="models")
app.add_typer(config_command.app, name="config")
app.add_typer(train_command.app, name="train")
app.add_typer(evaluate_command.app, name="evaluate")
app.add_typer(router_command.app, name="router")
app.add_typer(keys_command.app, name="keys")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            told = version("mole-router")
        except PackageNotFoundError:
            told = "from its sources, which are not installed"  # as in the image
        typer.echo(f"mole {told}")
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
    """Try it: two services, twelve requests.

    Starts a worker and a coordinator on the embedded models, asks them in many languages, and keeps serving.
    """
    from mole.demo.run import DemoOptions, run_demo

    run_demo(DemoOptions(once, port, worker_port, cache, json_output))


@app.command(epilog='Such as: eval "$(mole completion bash)" in ~/.bashrc.')
def completion(shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print a shell's completion script."""
    from mole.cli.completion_command import completion_script

    typer.echo(completion_script(shell))


@app.command()
def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Tell what this machine can run."""
    from mole.cli.doctor_command import run_doctor

    run_doctor(json_output)


def main() -> None:
    """Entry point: runs the command; an error ends it with one line and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a sign is shown its number
            stream.reconfigure(errors="backslashreplace")
    try:
        _complete_if_asked()
        app(prog_name="mole")
    except KeyboardInterrupt:
        leave(ExitCode.INTERRUPTED)
    except SystemExit as end:  # typer makes one of an interrupt, too
        if isinstance(end.code, int) and end.code:
            leave(end.code)
        raise
    except Exception as error:  # noqa: BLE001 - the outermost border: nothing passes it as a trace
        leave(_tell(error))


def _tell(error: Exception) -> int:
    """Prints the line for an error; its exit code."""
    if "--debug" in sys.argv[1:]:
        from traceback import print_exception

        print_exception(error)
        return ExitCode.FAILED
    from mole.cli.errors import explain

    shown = explain(error)
    err().print(f"mole: {shown}", markup=False, soft_wrap=True)
    return shown.exit_code


def _complete_if_asked() -> None:
    """Lets typer answer a shell that completes; it knows the shells only once it is told to."""
    if COMPLETE in os.environ:  # typer's own protocol, no setting
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()


if __name__ == "__main__":
    main()
