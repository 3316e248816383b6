"""The dashboard asks for metrics that the services have, with labels that these metrics have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from app.services.telemetry.collector import RuntimeCollector, Snapshot
from app.services.telemetry.metrics import Metrics as CoordinatorMetrics
from expert_worker.metrics import Metrics as WorkerMetrics
from moe_router.contracts import Latency, Timings, WorkerInfo
from moe_router.gating.batching import EncoderCounts
from moe_router.tally import SizeTally

FOLDER = Path(__file__).resolve().parents[3] / "docker" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "mole.json").read_text())
OF_PROMETHEUS = {"job", "instance", "le"}


def coordinator() -> bytes:
    worker = WorkerInfo(
        worker_id="w", url="", model_key="m", state="healthy", outstanding=0, queue_depth=1,
        latency_ms=Latency(p50=None, p95=None), tasks=[],
    )  # fmt: skip
    now = Snapshot([worker], 0, {"gating": 0}, EncoderCounts(SizeTally(), 0, 0), "2026-01-01T00:00:00", False)
    metrics = CoordinatorMetrics()
    metrics.registry.register(RuntimeCollector(lambda: now))
    metrics.count_request("GET", "/x", 200, 0.1)
    metrics.count_worker_call("w", "ok", 0.1)
    metrics.count_failover("reset")
    metrics.count_hedge("won")
    metrics.count_ejection("w", "reset")
    metrics.count_trial("w", "ok")
    metrics.count_view("w", "down")
    metrics.count_decision(Timings(language=1), 1, "out_of_scope")
    return metrics.render()


def worker() -> bytes:
    metrics = WorkerMetrics()
    metrics.experts.labels("a/b", "ok").inc()
    return metrics.render(cut={"a/b": 1})


def samples() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for text in (coordinator(), worker()):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_every_expression_reads_what_is_there() -> None:
    known = samples()
    for expression in expressions():
        names = re.findall(r"mole_[a-z_]+", re.sub(r'"[^"]*"', '""', expression))
        assert names, expression
        for name in names:
            assert name in known, expression
        labels = set(re.findall(r"(\w+)=~?!?", re.sub(r'"[^"]*"', '""', expression)))
        for group in re.findall(r"by \(([^)]*)\)", expression):
            labels |= set(group.split(", "))
        assert labels - OF_PROMETHEUS <= set().union(*(known[name] for name in names)), expression


def test_names_keep_to_the_conventions() -> None:
    for text in (coordinator(), worker()):
        for family in text_string_to_metric_families(text.decode()):
            assert family.name.startswith("mole_")
            assert family.documentation
            if family.type == "counter":
                assert all(s.name.endswith(("_total", "_created")) for s in family.samples)


def test_the_page_for_operators_names_metrics_that_are_there() -> None:
    page = (FOLDER.parents[1] / "docs" / "operations.md").read_text()
    known = samples()
    named = set(re.findall(r"`(mole_[a-z_]+)`", page))
    assert named
    assert {name for name in named if name not in known and f"{name}_bucket" not in known} == set()
