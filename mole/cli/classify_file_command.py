"""`mole classify-file`: every row of a file, in order, gone on with after a crash."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mole.cli.console import CommandError, ExitCode, client_for, print_json
from mole.cli.errors import explain
from mole.errors import MoleAPIError
from mole.files.formats import STANDARD, FileError, Format, Source, format_of
from mole.files.progress import Progress, duration
from mole.files.run import RowFailedError, UnservedError, Wanted, classify_rows
from mole.files.sinks import Sink, open_sink
from mole.retry import RETRIED_STATUSES

HINT = "what is written is kept; the same command goes on from there"
HINT_RESTARTED = "what is written is kept; the same command without --restart goes on from there"


@dataclass(frozen=True, slots=True)
class FileArguments:
    """What the command line says, beside what to do with a row."""

    input: str
    output: str
    input_format: Format | None
    output_format: Format | None
    delimiter: str | None
    encoding: str
    errors: Path | None
    restart: bool
    quiet: bool
    as_json: bool
    url: str | None
    attempts: int
    """8 take about half a minute: a run of hours outlives a restart of the service"""


def run_classify_file(arguments: FileArguments, wanted: Wanted) -> None:
    """Classifies the file; ends with 1 where a row failed."""
    delimiter = _delimiter(arguments.delimiter)
    _check_encoding(arguments.encoding)
    try:
        source = Source(
            arguments.input,
            format_of(arguments.input, arguments.input_format, Format.JSONL),
            delimiter,
            arguments.encoding,
        )
        kind = format_of(arguments.output, arguments.output_format, source.format)
        _check_paths(arguments)
        sink = open_sink(
            arguments.output,
            kind,
            _delimiter_of_output(delimiter, source, kind),
            arguments.errors,
            _shape(source, kind, wanted),
            restart=arguments.restart,
            source=source,
        )
        _run(source, sink, wanted, arguments)
    except FileError as error:
        raise CommandError(str(error)) from error


def _run(source: Source, sink: Sink, wanted: Wanted, arguments: FileArguments) -> None:
    _end_at_second_interrupt()
    resumable = arguments.output != STANDARD
    hint = HINT_RESTARTED if arguments.restart else HINT
    finished = told = False
    before = sink.rows
    progress = Progress(sys.stderr, None, before)
    try:
        progress = Progress(sys.stderr, source.count(), before, quiet=arguments.quiet)
        with client_for(arguments.url, attempts=arguments.attempts) as client:
            classify_rows(source, sink, client, wanted, progress)
        finished = True
    except (RowFailedError, UnservedError) as error:
        told = resumable
        code = ExitCode.UNREACHABLE if isinstance(error, UnservedError) else ExitCode.FAILED
        raise CommandError(f"{error}; {hint}" if told else str(error), code) from error
    except MoleAPIError as error:
        if error.status not in RETRIED_STATUSES:
            raise
        raise CommandError(str(explain(error)), ExitCode.UNREACHABLE) from error
    finally:
        progress.end()
        sink.close(finished)
        if not finished and not told and resumable and sink.rows:
            sys.stderr.write(f"mole: {_rows(sink.rows)}: {hint}\n")
    _sum_up(sink, before, progress, arguments)
    if sink.failed:
        sys.exit(ExitCode.FAILED)


def _end_at_second_interrupt() -> None:
    """The first Ctrl-C keeps what is written; who presses it again waits for nothing, and sees no trace."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup's is another
        signal.signal(signal.SIGINT, first)


def _sum_up(sink: Sink, before: int, progress: Progress, arguments: FileArguments) -> None:
    done = sink.rows - before
    if arguments.as_json:
        summary = {
            "rows": sink.rows,
            "failed": sink.failed,
            "before": before,
            "abstained": progress.abstained,
            "rows_per_second": progress.rate,
        }
        if arguments.output == STANDARD:  # which holds the rows
            sys.stderr.write(json.dumps(summary) + "\n")
        else:
            print_json(json.dumps(summary))
    elif not arguments.quiet:
        took = duration(done / progress.rate) if done else "0 s"
        earlier = f", {before:,} of them by earlier runs" if before else ""
        failed = f", {sink.failed:,} failed" if sink.failed else ""
        abstained = f", {progress.abstained:,} abstained" if progress.abstained else ""
        sys.stderr.write(f"{_rows(sink.rows)}{earlier}{failed}{abstained}; {progress.rate:,.0f}/s, {took}\n")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _delimiter(stated: str | None) -> str | None:
    r"""What parts the cells; a tab may be written as \t, which a shell hands on as two characters."""
    found = "\t" if stated == r"\t" else stated
    if found is not None and (len(found) != 1 or found in '"\r\n'):
        raise CommandError(rf"--delimiter: {stated!r} is no single character; a tab is \t", ExitCode.USAGE)
    return found


def _delimiter_of_output(stated: str | None, source: Source, kind: Format) -> str | None:
    """IN's is not OUT's where they are of different formats; where IN parts no cells it can only be OUT's."""
    return stated if kind is source.format or source.format not in (Format.CSV, Format.TSV) else None


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, UnicodeError) as error:
        raise CommandError(f"--encoding: there is no {encoding!r}", ExitCode.USAGE) from error


def _check_paths(arguments: FileArguments) -> None:
    real = {Path(p).resolve() for p in (arguments.input, arguments.output) if p != STANDARD}
    both_standard = arguments.input == arguments.output == STANDARD
    if len(real) < 2 and not both_standard and STANDARD not in (arguments.input, arguments.output):
        raise CommandError("IN and OUT are the same file", ExitCode.USAGE)
    if arguments.errors is not None and arguments.errors.resolve() in real:
        raise CommandError("--errors is IN or OUT", ExitCode.USAGE)
    if arguments.input != STANDARD and not Path(arguments.input).is_file():
        raise CommandError(f"there is no file {arguments.input}")
    for path in (arguments.output, arguments.errors):
        if path is not None and path != STANDARD and not (folder := Path(path).parent).is_dir():
            raise CommandError(f"there is no folder {folder}")


def _shape(source: Source, kind: Format, wanted: Wanted) -> list[Any]:
    """What must be the same for a run to go on with another one's rows."""
    return [
        source.format, source.delimiter, source.encoding, kind, wanted.text_column, wanted.description,
        wanted.description_column, sorted(wanted.options.items()), wanted.prefix,
    ]  # fmt: skip
