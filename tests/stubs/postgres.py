"""A PostgreSQL server of one's own, from the system's package, in a folder that is thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

from tests.stubs.processes import free_port

OWNER = "postgres"
ROOTS = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql")


def binaries() -> Path | None:
    """The folder of the newest server on this machine."""
    found = [path.parent for root in ROOTS for path in Path(root).glob("*/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).parent)
    return max(found, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0), default=None)


class PostgresServer:
    """Started at once; `stop` and `start` are outages."""

    def __init__(self, folder: Path) -> None:
        """Makes the cluster."""
        # Not pytest's own folder: the server runs as another user, who may not enter that.
        self._folder = Path(tempfile.mkdtemp(prefix="mole-postgres-"))
        self._bin = folder
        self.port = free_port()
        self._as: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            owner = pwd.getpwnam(OWNER)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._as = ["runuser", "-u", OWNER, "--"]
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", OWNER, "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        log = self._folder / "log"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(log), "-o", options, "-w", "start")

    def stop(self) -> None:
        """At once, as if it had been killed; open connections break."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """The URL of a blank database."""
        name = f"mole_{uuid.uuid4().hex}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file: the server inherits it, and a pipe would be waited for as long as it runs.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [*self._as, str(self._bin / program), *arguments],
                cwd="/",
                stdout=said,
                stderr=said,
                check=False,
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode()
