"""Counters and histograms that cost a request next to nothing, scraped as Prometheus' own.

The library's take a lock and look their labels up at each call, which takes several times as long; these are
written by the event loop alone, and read by a scrape at worst in the middle of one update.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class CounterTally(Collector):
    """A counter by labels; `name` without `_total`."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._counts: Counter[tuple[str, ...]] = Counter()

    def count(self, *labels: str) -> None:
        """Adds one; the labels in the order of their names."""
        self._counts[labels] += 1

    def keep(self, first: Collection[str]) -> None:
        """Drops every series whose first label is none of these."""
        for labels in [known for known in self._counts if known[0] not in first]:
            del self._counts[labels]

    def describe(self) -> list[Metric]:
        """The metric without its values."""
        return [CounterMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        found = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in list(self._counts.items()):
            found.add_metric(labels, count)
        yield found


class HistogramTally(Collector):
    """A histogram of seconds by labels; `bounds` ascend."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._bounds = tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Notes one duration; the labels in the order of their names."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, seconds)] += 1  # a bound belongs to its own bucket
        self._sums[labels] += seconds

    def keep(self, first: Collection[str]) -> None:
        """Drops every series whose first label is none of these."""
        for labels in [known for known in self._counts if known[0] not in first]:
            del self._counts[labels], self._sums[labels]

    def describe(self) -> list[Metric]:
        """The metric without its values."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        found = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, counts in list(self._counts.items()):
            running, buckets = 0, []
            for name, count in zip(names, counts, strict=True):
                running += count
                buckets.append((name, float(running)))
            found.add_metric(labels, buckets, self._sums[labels])
        yield found
