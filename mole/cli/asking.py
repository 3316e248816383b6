"""The subcommands that ask a running service: their options; what they do is imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mole.cli.console import epilog
from mole.files.formats import Format

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The coordinator. [default: $MOLE_URL or :8000]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the subcommands, each with its examples."""
    commands: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
        "classify": (classify, CLASSIFY),
        "classify-file": (classify_file, CLASSIFY_FILE),
        "feedback": (feedback, FEEDBACK),
        "tasks": (tasks, ("mole tasks", "mole tasks --json")),
        "workers": (workers, ("mole workers --url http://10.0.0.5:8000", "mole workers --json")),
        "bench": (bench, BENCH),
    }
    for name, (function, examples) in commands.items():
        app.command(name, epilog=epilog(*examples))(function)


CLASSIFY = (
    'mole classify "Great phone!" -d "Good or bad?"',
    "mole classify - -t finance/pii_detection < mail.txt",
)
CLASSIFY_FILE = (
    'mole classify-file in.csv out.csv -d "Good or bad?"',
    "mole classify-file in.parquet out.parquet \\",
    "    --text-column review --task retail/review_rating",
    "zcat in.jsonl.gz | mole classify-file - - > out.jsonl",
)
FEEDBACK = ("mole feedback 5f0c1f6b --task a/b --label neutral", "mole feedback 5f0c1f6b --score 0")
BENCH = (
    "mole bench http://127.0.0.1:8000 -n 500 -c 16",
    "mole bench --route --json",
)


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
    """Classify one text."""
    from mole.cli.classify_command import ClassifyArguments, run_classify

    run_classify(
        ClassifyArguments(text, description, task, language, field or [], probabilities, json_output, url)
    )


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
    """Say what the right answer would be."""
    from mole.cli.feedback_command import FeedbackArguments, run_feedback

    run_feedback(FeedbackArguments(request_id, task, label, score, json_output, url))


def classify_file(
    input_file: Annotated[
        str, typer.Argument(metavar="IN", help="CSV, TSV, JSON Lines or Parquet; `-`: stdin.")
    ],
    output_file: Annotated[str, typer.Argument(metavar="OUT", help="Where the rows go; `-`: stdout.")],
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    description: Annotated[
        str | None, typer.Option("--description", "-d", help="What to find out, in any language.")
    ] = None,
    description_column: Annotated[
        str | None, typer.Option(help="The column that says for each row what to find out.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="DOMAIN/TASK", help="Fix the task.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", metavar="CODE", help="Fix the texts' language.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=4096, help="Rows in flight at once.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, max=100, help="Rows of one request.")] = 16,
    attempts: Annotated[int, typer.Option(min=1, help="Tries of what fails in passing.")] = 8,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="End with the first row that fails.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option(help="Write each failed row's number and problem here, as JSON Lines.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, and write over what is there.")
    ] = False,
    input_format: Annotated[Format | None, typer.Option(help="[default: by the name; stdin: jsonl]")] = None,
    output_format: Annotated[
        Format | None, typer.Option(help="[default: by the name; stdout: as IN]")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between IN's cells, and OUT's in the same format. [default: comma]")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of IN.")] = "utf-8",
    prefix: Annotated[str, typer.Option(help="Before the new columns' names.")] = "mole_",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    url: Url = None,
) -> None:
    """Classify every row of a file.

    OUT has the rows of IN in their order, with the answers in new columns; a row that fails says so in
    mole_error. Killed or interrupted, the same command goes on where it was: each row is in OUT once. So it
    does where a request is refused as a whole, or nothing of three in a row is served (429, 503), as while a
    worker is started anew.

    Exit codes: 0 every row has an answer; 1 a row failed, or the run could not go on; 2 wrong usage; 3 no
    service answers, or it serves nothing for now; 130 interrupted.
    """
    from mole.cli.classify_file_command import FileArguments, run_classify_file
    from mole.files.run import Wanted

    stated = {"task": task, "language": language}
    wanted = Wanted(
        text_column, description, description_column,
        {name: value for name, value in stated.items() if value is not None},
        prefix, concurrency, batch_size, fail_fast,
    )  # fmt: skip
    run_classify_file(
        FileArguments(
            input_file, output_file, input_format, output_format, delimiter, encoding, errors, restart, quiet,
            json_output, url,
            attempts,
        ),
        wanted,
    )  # fmt: skip


def tasks(json_output: Json = False, url: Url = None) -> None:
    """List what can be asked."""
    from mole.cli.fleet_command import run_tasks

    run_tasks(url, json_output)


def workers(json_output: Json = False, url: Url = None) -> None:
    """List the workers and how they are."""
    from mole.cli.fleet_command import run_workers

    run_workers(url, json_output)


def bench(
    address: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="The coordinator. [default: $MOLE_URL or :8000]")
    ] = None,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="How many.")] = 100,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Callers at once.")] = 8,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before the clock starts.")] = 8,
    route: Annotated[bool, typer.Option("--route", help="Ask for the route alone, no expert.")] = False,
    text: Annotated[list[str] | None, typer.Option(help="A text to send; may be repeated.")] = None,
    description: Annotated[
        str | None, typer.Option("--description", "-d", help="What to find out.")
    ] = "Is this good or bad?",
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="DOMAIN/TASK", help="Fix the task.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Measure latency and throughput.

    A closed loop: each caller asks again once it is answered; nothing is tried again. The first
    requests, --warmup, do not count.
    """
    from mole.cli.bench_command import BenchArguments, run_bench

    run_bench(
        BenchArguments(
            address, requests, concurrency, warmup, route, text or [], description, task, json_output
        )
    )
