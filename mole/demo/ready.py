"""Waits until the services can answer, and shows how far they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

from mole.cli.console import CommandError, err
from mole.connection import NO_PROXY

if TYPE_CHECKING:
    from mole.client import Mole
    from mole.demo.processes import Service

TIMEOUT_S = 1200.0
"""The first start makes the models; a slow disk gets its time."""
POLL_S = 0.25
REACH_TIMEOUT_S = 60.0


def wait_ready(services: list[Service], timeout_s: float = TIMEOUT_S) -> float:
    """Blocks until every service is ready; returns the seconds it took.

    Raises:
        CommandError: a service ended, failed, or was not ready in time.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    start = time.monotonic()
    with (
        Progress(*columns, console=err(), transient=True) as bar,
        httpx.Client(timeout=5.0, mounts=NO_PROXY) as http,
    ):
        jobs = {s.name: bar.add_task("starting", total=1.0, name=f"{s.name:<11}") for s in services}
        waiting = list(services)
        while waiting:
            if time.monotonic() - start > timeout_s:
                names = ", ".join(s.name for s in waiting)
                raise CommandError(f"not ready after {timeout_s:.0f} s: {names} (log: {waiting[0].log})")
            for service in list(waiting):
                service.check()
                health = _health(http, service)
                bar.update(jobs[service.name], description=_say(health), completed=_fraction(health))
                if health.get("status") == "failed":
                    raise CommandError(
                        f"the {service.name} cannot serve: {health.get('detail')} (log: {service.log})"
                    )
                if health.get("status") == "ready":
                    waiting.remove(service)
            if waiting:
                time.sleep(POLL_S)
    return time.monotonic() - start


def wait_reachable(client: Mole, timeout_s: float = REACH_TIMEOUT_S) -> None:
    """Blocks until the coordinator, too, has seen that every worker is ready.

    Raises:
        CommandError: it did not see it in time.
    """
    end = time.monotonic() + timeout_s
    while waiting := [w for w in client.workers().workers if w.state != "healthy"]:
        if time.monotonic() > end:
            told = ", ".join(f"{w.worker_id} {w.state} ({w.reason or 'no reason given'})" for w in waiting)
            raise CommandError(f"the coordinator reaches no ready worker: {told}")
        time.sleep(POLL_S)


def _health(http: httpx.Client, service: Service) -> dict[str, Any]:
    """Body of the service's health; empty while nothing listens."""
    try:
        body = http.get(f"{service.url}/api/v1/health").json()
    except (httpx.HTTPError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _say(health: dict[str, Any]) -> str:
    return str(health.get("detail") or health.get("status") or "starting")


def _fraction(health: dict[str, Any]) -> float:
    return 1.0 if health.get("status") == "ready" else float(health.get("progress") or 0.0)
