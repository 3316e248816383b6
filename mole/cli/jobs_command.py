"""`mole jobs`: many requests at once, worked off by a running MoLE service."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mole.cli.console import CommandError, ExitCode, client_for, epilog, err, out, print_json
from mole.retry import RETRIED_STATUSES

if TYPE_CHECKING:
    from moe_router.contracts import JobAnswer
    from mole.client import Mole

app = typer.Typer(help="Many requests in the background.", no_args_is_help=True)

PIECE_BYTES = 64 * 1024
LONGEST_POLL_S = 5.0
AWAY_S = 300.0
"""Without a time to give up after, a service may be away for so long."""

JobId = Annotated[str, typer.Argument(help="As `submit` printed it.")]
Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The coordinator. [default: $MOLE_URL or :8000]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the job as JSON.")]


@app.command(epilog=epilog("mole jobs submit reviews.jsonl", "mole jobs submit - --key monday < in.jsonl"))
def submit(
    file: Annotated[str, typer.Argument(help="JSON Lines, a request each; `-` reads standard input.")],
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Idempotency key: the same again, the same job."),
    ] = None,
    json_output: AsJson = False,
    url: Url = None,
) -> None:
    """Hand in a file of requests.

    Prints the job once it is stored.
    """
    with client_for(url) as client:
        job = client.submit_job(_pieces(file), idempotency_key=key)
    _show(job, json_output)


@app.command("list")
def list_jobs(
    json_output: Annotated[bool, typer.Option("--json", help="Print the jobs as JSON.")] = False,
    url: Url = None,
) -> None:
    """List your newest jobs.

    The newest 100, newest first.
    """
    with client_for(url) as client:
        found = client.jobs()
    if json_output:
        print_json(found.model_dump_json(indent=2))
        return
    for job in found.jobs:
        out().print(f"{job.job_id} {job.created_at} {_progress(job)}", markup=False, soft_wrap=True)
    if not found.jobs:
        err().print("no jobs", markup=False)


@app.command()
def status(job_id: JobId, json_output: AsJson = False, url: Url = None) -> None:
    """Show how far a job is."""
    with client_for(url) as client:
        _show(client.job(job_id), json_output)


@app.command(epilog=epilog("mole jobs results JOB_ID > answers.jsonl"))
def results(
    job_id: JobId,
    json_output: Annotated[
        bool, typer.Option("--json", help="They are JSON Lines anyway; for symmetry.")
    ] = False,
    url: Url = None,
) -> None:
    """Print the finished items.

    They are JSON Lines, by index.
    """
    with client_for(url) as client:
        for line in client.job_result_lines(job_id):
            print_json(line, indent=None)


@app.command()
def cancel(job_id: JobId, json_output: AsJson = False, url: Url = None) -> None:
    """Cancel a job.

    What is done can still be read.
    """
    with client_for(url) as client:
        _show(client.cancel_job(job_id), json_output)


@app.command(epilog=epilog("mole jobs wait JOB_ID && mole jobs results JOB_ID"))
def wait(
    job_id: JobId,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, metavar="SECONDS", help="Give up after so long.")
    ] = None,
    json_output: AsJson = False,
    url: Url = None,
) -> None:
    """Wait until a job is finished.

    Ends with 1 where it failed or was cancelled, or the time is up.
    """
    end = time.monotonic() + timeout if timeout is not None else None
    with client_for(url) as client:
        job, pause, seen = client.job(job_id), 0.2, time.monotonic()
        while job.finished_at is None:
            left = end - time.monotonic() if end is not None else pause
            if left <= 0:
                raise CommandError(f"job {job_id} is not finished after {timeout:g} s: {_progress(job)}")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, LONGEST_POLL_S)
            found = _look(client, job_id, patient=end is not None or time.monotonic() - seen < AWAY_S)
            if found is not None:
                job, seen = found, time.monotonic()
    _show(job, json_output)
    if job.state != "succeeded":
        raise typer.Exit(ExitCode.FAILED)


def _look(client: Mole, job_id: str, *, patient: bool) -> JobAnswer | None:
    """How far the job is; None while the service cannot tell or is started anew, if one is patient."""
    from mole.errors import MoleAPIError, MoleConnectionError

    try:
        return client.job(job_id)
    except (MoleAPIError, MoleConnectionError) as error:
        if not patient or (isinstance(error, MoleAPIError) and error.status not in RETRIED_STATUSES):
            raise
        err().print(f"mole: {error}; waiting", markup=False, soft_wrap=True)
        return None


def _pieces(file: str) -> Iterator[bytes]:
    if file == "-":
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            yield piece
        return
    with Path(file).open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece


def _show(job: JobAnswer, as_json: bool) -> None:
    if as_json:
        print_json(job.model_dump_json(indent=2))
    else:
        out().print(f"{job.job_id} {_progress(job)}", markup=False, soft_wrap=True)


def _progress(job: JobAnswer) -> str:
    left = f", about {job.eta_seconds:g} s left" if job.eta_seconds is not None else ""
    return f"{job.state}: {job.done + job.failed} of {job.total} finished, {job.failed} failed{left}"
