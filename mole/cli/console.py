"""Where the command prints, and how it ends when something is wrong."""

from __future__ import annotations

import os
from contextlib import suppress
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from mole.client import Mole


class ExitCode(IntEnum):
    """How the command ends; the same for every subcommand."""

    OK = 0
    FAILED = 1
    """What was asked for did not succeed: an error in a file, a refused request, a failed demo."""
    USAGE = 2
    """The command line is wrong; given by typer."""
    UNREACHABLE = 3
    """No MoLE service answers at the address."""
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with one clear line that also names the mend."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@cache
def out() -> Console:
    """Standard output: answers."""
    from rich.console import Console

    return Console(highlight=False, emoji=False)


@cache
def err() -> Console:
    """Standard error: progress and complaints."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def print_json(document: str, *, indent: int | None = 2) -> None:
    """Prints JSON to standard output, untouched by its width; `indent` is for what must be escaped."""
    import json
    import sys

    try:
        document.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # escaped as JSON escapes, not as a terminal is shown what it lacks
        document = json.dumps(json.loads(document), indent=indent)
    sys.stdout.write(document.rstrip("\n") + "\n")


def leave(code: int) -> NoReturn:
    """Ends the process; requests that are in flight are not waited for, as Python would for their threads."""
    import signal
    import sys
    import threading

    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    main = threading.main_thread()
    if any(thread is not main and not thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def epilog(*examples: str) -> str:
    """Examples as they are typed; click would else fill them into paragraphs."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{lines}"


def client_for(url: str | None, *, attempts: int | None = None) -> Mole:
    """The client that the options and the environment ask for."""
    from mole.client import Mole
    from mole.retry import Retry
    from mole.settings import CommandSettings

    settings = CommandSettings()
    address = url or settings.url
    if not address.startswith(("http://", "https://")):
        raise CommandError(
            f"{address!r} is no address of a service: it begins with http:// or https://", ExitCode.USAGE
        )
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return Mole(address, api_key=key, retry=Retry(attempts=attempts) if attempts else None)
