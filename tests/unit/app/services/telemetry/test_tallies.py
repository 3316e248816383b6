"""The light metrics say the same as the library's."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.services.telemetry.tallies import CounterTally, HistogramTally

BOUNDS = (0.001, 0.5, 10.0)
DURATIONS = [("a", 0.0), ("a", 0.001), ("b", 0.2), ("a", 0.5), ("a", 10.0), ("b", 99.0)]


def scraped(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


def test_they_are_scraped_like_the_librarys_own() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = CounterTally("mole_x", "A count.", ["route", "status"])
    histogram = HistogramTally("mole_y_seconds", "A duration.", ["step"], BOUNDS)
    ours.register(tally)
    ours.register(histogram)
    counter = Counter("mole_x", "A count.", ["route", "status"], registry=theirs)
    known = Histogram("mole_y_seconds", "A duration.", ["step"], buckets=BOUNDS, registry=theirs)
    for route, status in (("/a", "200"), ("/a", "200"), ('/"b"\n', "500")):
        tally.count(route, status)
        counter.labels(route, status).inc()
    for step, seconds in DURATIONS:
        histogram.observe(seconds, step)
        known.labels(step).observe(seconds)
    assert scraped(ours) == scraped(theirs)
    assert len(scraped(ours)) > 12


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    registry.register(CounterTally("mole_x", "A count.", []))
    with pytest.raises(ValueError, match="mole_x"):
        registry.register(CounterTally("mole_x", "Another.", []))


def test_series_of_what_is_gone_are_dropped() -> None:
    registry = CollectorRegistry()
    tally, histogram = CounterTally("mole_x", "A.", ["w", "o"]), HistogramTally("mole_y", "B.", ["w"], BOUNDS)
    registry.register(tally)
    registry.register(histogram)
    for worker in ("gone", "kept"):
        tally.count(worker, "ok")
        histogram.observe(0.1, worker)
    tally.keep({"kept"})
    histogram.keep({"kept"})
    text = "".join(scraped(registry))
    assert 'mole_x_total{o="ok",w="kept"} 1.0' in text
    assert 'mole_y_count{w="kept"} 1.0' in text
    assert "gone" not in text
