"""Starts the services, asks the cases, shows the table, then keeps serving."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mole.cli.console import CommandError, err, out, print_json
from mole.client import Mole
from mole.demo.cases import CASES, Case
from mole.demo.files import demo_files, mapping_for
from mole.demo.processes import Service, free_port, own_environment
from mole.demo.ready import wait_reachable, wait_ready
from mole.demo.table import Outcome, outcome_table
from mole.errors import MoleClientError
from mole.settings import CommandSettings

WATCH_S = 0.5


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says."""

    once: bool
    port: int
    worker_port: int
    cache: Path | None
    as_json: bool


def run_demo(options: DemoOptions) -> None:
    """Runs the demo.

    Raises:
        CommandError: a service did not start or ended, or a request failed.
    """
    with _signals(), tempfile.TemporaryDirectory(prefix="mole-demo-") as scratch:
        services = _services(options, Path(scratch))
        try:
            _run(options, services)
        except KeyboardInterrupt:
            if options.once:
                raise
            err().print("stopping …")
        finally:
            for service in reversed(services):  # the coordinator first: nothing is sent to a dead worker
                service.stop()


def _services(options: DemoOptions, scratch: Path) -> list[Service]:
    files = demo_files()
    cache = (options.cache or CommandSettings().cache).expanduser().absolute()
    worker_port = free_port(options.worker_port, set())
    port = free_port(options.port, {worker_port})
    worker_id, mapping = mapping_for(files, worker_port, scratch)
    shared = ["--demo", "--registry", str(files.registry), "--cache", str(cache)]
    logs = cache / "logs"
    environment = own_environment(os.environ, cache / "demo-state")
    worker, coordinator = [*shared, "--worker-id", worker_id], [*shared, "--mapping", str(mapping)]
    return [
        Service("worker", worker_port, worker, logs / "demo-worker.log", environment),
        Service("coordinator", port, coordinator, logs / "demo-coordinator.log", environment),
    ]


def _run(options: DemoOptions, services: list[Service]) -> None:
    worker, coordinator = services
    for service in services:
        service.start()
    err().print(f"starting a worker at {worker.url} and a coordinator at {coordinator.url}", soft_wrap=True)
    took = wait_ready(services)
    err().print(f"both ready after {took:.1f} s", soft_wrap=True)
    with Mole(coordinator.url) as client:
        wait_reachable(client)
        outcomes = [_ask(client, case) for case in CASES]
    if options.as_json:
        for outcome in outcomes:
            print_json(_as_json(outcome))
    else:
        out().print(outcome_table(outcomes, out().width))
    failed = sum(outcome.answer is None for outcome in outcomes)
    if failed and options.once:
        raise CommandError(f"{failed} of {len(outcomes)} requests failed (logs: {worker.log.parent})")
    if not options.once:
        _keep_serving(services, options.as_json)


def _ask(client: Mole, case: Case) -> Outcome:
    try:
        return Outcome(case, client.classify(case.text, case.description, fields=case.fields or None))
    except MoleClientError as error:
        return Outcome(case, None, str(error))


def _as_json(outcome: Outcome) -> str:
    import json
    from dataclasses import asdict

    answer = outcome.answer.model_dump(mode="json") if outcome.answer else None
    return json.dumps(
        {"request": asdict(outcome.case), "answer": answer, "error": outcome.error}, ensure_ascii=False
    )


def _keep_serving(services: list[Service], as_json: bool) -> None:
    _worker, coordinator = services
    console = err() if as_json else out()  # nothing but JSON on standard output
    body = '{"text": "Ce téléphone est génial !", "description": "Is this post positive or negative?"}'
    console.print(
        f"\nTry one yourself:\n\n"
        f"curl -s {coordinator.url}/api/v1/classify -H 'Content-Type: application/json' -d '{body}'\n\n"
        f"The console is at {coordinator.url}, the API is described at {coordinator.url}/docs. "
        "Stop with Ctrl-C.",
        markup=False,
        soft_wrap=True,
    )
    while True:
        for service in services:
            service.check()
        time.sleep(WATCH_S)


@contextmanager
def _signals() -> Iterator[None]:
    """Lets a request to end the command run the same cleaning up as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, interrupt) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
