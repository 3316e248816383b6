"""A service as a child process that never outlives the command."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mole.cli.console import CommandError

STOP_TIMEOUT_S = 15.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ELSEWHERE = frozenset(
    {
        "DATABASE_URL", "MOLE_AUDIT_LOG", "MOLE_REQUIRE_API_KEY", "MOLE_API_KEY", "MOLE_WORKER_TOKEN",
        "MOLE_ENGINE_API_KEY",
    }
)  # fmt: skip
"""Variables of another installation: its database, its audit log, its keys."""


class Service:
    """`mole serve …` in a session of its own, its output in a log file.

    Args:
        name: `worker` or `coordinator`; also the subcommand.
        port: Where it is to listen on 127.0.0.1.
        options: Further options of `mole serve NAME`.
        log: The file for its output.
        environment: All of its variables.
    """

    def __init__(
        self, name: str, port: int, options: list[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        serve = ["mole.cli.main", "serve", name, "--port", str(port), *options]
        self._command = [sys.executable, "-P", "-m", *serve]  # -P: not the caller's folder's modules
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches only the command, which stops it in order
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def check(self) -> None:
        """Raises CommandError where the process has ended by itself."""
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            raise CommandError(
                f"the {self.name} ended with code {code}: {self._last_line()} (log: {self.log})"
            )

    def stop(self) -> None:
        """Ends the process: asked first, killed when it does not listen."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def own_environment(given: Mapping[str, str], state: Path) -> dict[str, str]:
    """The given variables, but with keys, jobs and feedback of its own unless these say where."""
    kept = {name: value for name, value in given.items() if name.upper() not in ELSEWHERE}
    return {"MOLE_STATE_DIR": str(state), **kept}


def free_port(wanted: int, taken: set[int]) -> int:
    """The wanted port if nothing listens there and it is not in `taken`, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            if found not in taken:
                return found
    raise CommandError("no free port was found on 127.0.0.1")


def _die_with_parent() -> None:
    """Runs in the child before it becomes the service: a killed command takes it along."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
