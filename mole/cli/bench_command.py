"""`mole bench`: latency and throughput of a running service, as its callers see them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mole.cli.console import CommandError, ExitCode, out, print_json

if TYPE_CHECKING:
    from mole.async_client import AsyncMole
    from mole.errors import MoleConnectionError

TEXTS = (
    "The quarterly revenue rose by twelve percent.",
    "Der Umsatz stieg im dritten Quartal um zwölf Prozent.",
    "¡Qué festival tan maravilloso! Quiero volver el año que viene.",
    "科学家在南极冰层下发现了一个巨大的湖泊。",
    "I lost my card on the train yesterday. How do I get a new one?",
    "هذا الهاتف رائع والبطارية تدوم طويلا.",
)
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class BenchArguments:
    """What the command line says."""

    url: str | None
    requests: int
    concurrency: int
    warmup: int
    route_only: bool
    text: list[str]
    description: str | None
    task: str | None
    as_json: bool


@dataclass(slots=True)
class Measured:
    """What happened."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """of answers"""
    errors: Counter[str] = field(default_factory=Counter)
    unreachable: MoleConnectionError | None = None
    """the last one"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ordered = sorted(self.latencies_ms)
        return {
            "requests": len(ordered) + sum(self.errors.values()),
            "answered": len(ordered),
            "errors": dict(self.errors),
            "seconds": round(self.seconds, 3),
            "answers_per_second": round(len(ordered) / max(self.seconds, 1e-9), 2),
            "latency_ms": {
                "min": _round(ordered[0] if ordered else None),
                **{f"p{share}": _round(percentile(ordered, share)) for share in PERCENTILES},
                "max": _round(ordered[-1] if ordered else None),
            },
        }


def run_bench(arguments: BenchArguments) -> None:
    """Asks, and prints the figures; ends with 1 where nothing was answered."""
    measured = asyncio.run(_bench(arguments))
    if measured.unreachable is not None and not measured.latencies_ms:
        raise measured.unreachable
    figures = {"concurrency": arguments.concurrency, **measured.as_dict()}
    if arguments.as_json:
        print_json(json.dumps(figures, indent=2))
    else:
        _show(figures)
    if not measured.latencies_ms:
        raise CommandError("no request was answered", ExitCode.FAILED)


def percentile(ordered: list[float], share: float) -> float | None:
    """The smallest value that `share` percent of the values do not exceed (nearest rank)."""
    if not ordered:
        return None
    rank = -(-len(ordered) * share // 100)
    return ordered[max(int(rank), 1) - 1]


async def _bench(arguments: BenchArguments) -> Measured:
    """A closed loop: each of `concurrency` callers asks again as soon as it is answered."""
    from mole.async_client import AsyncMole
    from mole.retry import NEVER
    from mole.settings import CommandSettings

    settings = CommandSettings()
    key = settings.api_key.get_secret_value() if settings.api_key else None
    async with AsyncMole(arguments.url or settings.url, api_key=key, retry=NEVER) as client:
        await _ask(client, arguments, arguments.warmup, Measured())
        measured = Measured()
        started = time.perf_counter()
        await _ask(client, arguments, arguments.requests, measured)
        measured.seconds = time.perf_counter() - started
    return measured


async def _ask(client: AsyncMole, arguments: BenchArguments, count: int, measured: Measured) -> None:
    from mole.errors import MoleAPIError, MoleConnectionError

    texts = arguments.text or list(TEXTS)
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            began = time.perf_counter()
            try:
                text = texts[number % len(texts)]
                ask = client.route if arguments.route_only else client.classify
                await ask(text, arguments.description, task=arguments.task)
            except MoleAPIError as error:
                measured.errors[str(error.status)] += 1
            except MoleConnectionError as error:
                measured.errors["connection"] += 1
                measured.unreachable = error
            else:
                measured.latencies_ms.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(min(arguments.concurrency, max(count, 1)))))


def _show(figures: dict[str, Any]) -> None:
    latency = [f"{name} {ms} ms" for name, ms in figures["latency_ms"].items() if ms is not None]
    lines = [
        f"answered    {figures['answered']} of {figures['requests']}, {figures['concurrency']} at a time",
        f"throughput  {figures['answers_per_second']:.1f} answers/s over {figures['seconds']:.1f} s",
        "latency     " + ", ".join(latency[:3]),  # 60 columns hold no more
        *(["            " + ", ".join(latency[3:])] if latency[3:] else []),
    ]
    lines += [f"errors      {count} × {status}" for status, count in figures["errors"].items()]
    for line in lines:
        out().print(line, markup=False)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
