"""Real processes for tests: started, waited for, ended; their logs are shown where they fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Process:
    def __init__(self, arguments: list[str], port: int, log: Path, environment: dict[str, str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=out,
                stderr=out,
            )

    def wait_for(
        self, path: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The first answer of that status; a refused connection is waited out."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self._popen.poll() is None, f"it ended:\n{self.log.read_text()}"
            try:
                answer = httpx.get(self.url + path, headers=headers, timeout=5, trust_env=False)
                if answer.status_code == status:
                    return answer
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{path} never answered {status}:\n{self.log.read_text()}")

    def wait_healthy(self, workers: int = 1) -> None:
        """Waits until this coordinator, which serves already, finds so many workers, all of them healthy."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            told = httpx.get(self.url + "/api/v1/workers", timeout=10, trust_env=False).json()["workers"]
            if [worker["state"] for worker in told] == ["healthy"] * workers:
                return
            time.sleep(0.05)
        raise AssertionError(told)

    @property
    def resident_mib(self) -> float:
        """Memory that it holds now."""
        status = Path(f"/proc/{self._popen.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    @property
    def files(self) -> list[str]:
        """What its open file handles are, sockets among them."""
        found = []
        for handle in Path(f"/proc/{self._popen.pid}/fd").iterdir():
            try:
                found.append(os.readlink(handle))
            except FileNotFoundError:  # closed in between
                continue
        return found

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait_end(self) -> int:
        return self._popen.wait(PATIENCE_S)

    def stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait(10)


class Stage:
    """The processes of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []

    def worker(self, port: int | None = None, **environment: str) -> Process:
        """The real worker application over a stub pool; STUB_DEVICE_MS makes it compute in batches."""
        given = {"WORKER_MODEL_KEY": "tiny", "CONFIG_PATH": str(self.folder), **environment}
        return self._uvicorn("tests.stubs.worker_app:app", port, given)

    def coordinator(self, *arguments: str, **environment: str) -> Process:
        """The real coordinator application over stub gating; `arguments` are more of uvicorn's."""
        given = {
            "CONFIG_PATH": str(self.folder),
            "MOLE_PROBE_INTERVAL_SECONDS": "0.2",
            "MOLE_STATE_DIR": str(self.folder / "state"),
            **environment,
        }
        return self._uvicorn("tests.stubs.coordinator_app:app", None, given, *arguments)

    def real_coordinator(self, **environment: str) -> Process:
        """The coordinator as it is shipped, with the real gating weights."""
        return self._uvicorn("app.main:app", None, environment)

    def faulty(self, mode: str = "ok", model: str = "tiny", port: int | None = None) -> Process:
        """A worker that fails as it is told."""
        port = port or free_port()
        started = self._add(["tests.stubs.faulty_worker", str(port), mode, model], port, {})
        started.wait_for("/seen")
        return started

    def stop(self) -> None:
        for process in self.processes:
            process.stop()

    def _uvicorn(self, app: str, port: int | None, environment: dict[str, str], *arguments: str) -> Process:
        port = port or free_port()
        return self._add(["uvicorn", app, "--port", str(port), *arguments], port, environment)

    def _add(self, arguments: list[str], port: int, environment: dict[str, str]) -> Process:
        log = self.folder / f"process-{len(self.processes)}.log"
        self.processes.append(Process(arguments, port, log, environment))
        return self.processes[-1]
