"""The gateway's benchmark tells no ratio of noise."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_what_adds_nothing_that_can_be_measured_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    gateway = importlib.import_module("gateway")

    def result(way: str, p50_ms: float) -> dict[str, object]:
        told = {key: {"median": p50_ms, "least": p50_ms, "most": p50_ms} for key in KEYS}
        return {"delay_ms": 0.0, "concurrency": 1, "way": way, **told}

    for proxy, bypassed, wanted in ((2.0, 3.0, 2.0), (0.9, 3.0, "n/a"), (2.0, 0.9, "n/a"), (1.0, 3.0, "n/a")):
        results = [result("direct", 1.0), result("proxy", proxy), result("bypassed", bypassed)]
        goals = gateway.ratios(results)
        assert goals[0]["added_over_proxy"] == wanted
        assert f"| {wanted} (" in gateway.table(results, goals)


KEYS = ("p50_ms", "p99_ms", "per_second", "cpu_ms")
