"""Counters, gauges and histograms for Prometheus, on top of Ray's.

Ray exports what its processes count at every node's metrics port, with the prefix `ray_` and, in a Serve replica, the
labels `deployment`, `application` and `replica`. A `/metrics` route of our own would be wrong: the router is one of
several replicas behind Serve's proxy, and a scrape would meet any one of them.

One call of Ray's (`inc`, `observe`, `set` alike) takes 7 µs of processor time, and a router may commit 10,000 rounds
a second. So sums are made here, at a few tenths of a microsecond each, and handed over by `flush`, every few seconds.
Ray has no such way for histograms: an observation is a call. Those made once a text are Ray's histograms (`observe`);
those made every round are kept as counters, a bucket each (`tally`): the same arithmetic, `histogram_quantile`
included, under the names `…_bucket_total` (label `le`) and `…_sum_total`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

import msgspec

FLUSH_EVERY_S = 2.0
"""Ray itself reports every 10 s."""

Labels = tuple[str, ...]
Key = tuple[str, Labels]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A family of numbers, one for each combination of its labels' values."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "tally"]
    description: str
    labels: Labels = ()
    boundaries: tuple[float, ...] = ()
    """Upper bounds of the buckets of a histogram or tally, ascending."""


class Counter(Protocol):
    """As in `ray.serve.metrics`."""

    def inc(self, value: float, tags: dict[str, str]) -> None:
        """`value` must be positive."""


class Gauge(Protocol):
    """As in `ray.serve.metrics`."""

    def set(self, value: float, tags: dict[str, str]) -> None: ...


class Histogram(Protocol):
    """As in `ray.serve.metrics`."""

    def observe(self, value: float, tags: dict[str, str]) -> None: ...


class Backend(Protocol):
    """What makes the numbers public: the module `ray.serve.metrics`, or a recorder in tests."""

    def Counter(self, name: str, description: str, tag_keys: Labels) -> Counter: ...
    def Gauge(self, name: str, description: str, tag_keys: Labels) -> Gauge: ...
    def Histogram(self, name: str, description: str, boundaries: list[float], tag_keys: Labels) -> Histogram: ...


class _Tally:
    """Observations by bucket, not yet handed over."""

    def __init__(self, num_buckets: int) -> None:
        self.counts = [0] * num_buckets
        self.sum = 0.0


class Instruments:
    """The numbers of one process. Labels' values are given in the order of `Metric.labels`. Safe between threads."""

    def __init__(self, backend: Backend, metrics: Iterable[Metric]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._counters: dict[str, tuple[Counter, Labels]] = {}
        self._gauges: dict[str, tuple[Gauge, Labels]] = {}
        self._histograms: dict[str, tuple[Histogram, Labels]] = {}
        self._lock = threading.Lock()
        self._sums: defaultdict[Key, float] = defaultdict(float)
        self._levels: defaultdict[Key, float] = defaultdict(float)
        self._tallies: dict[Key, _Tally] = {}
        for metric in self._metrics.values():
            self._make(backend, metric)

    def add(self, name: str, value: float, *labels: str) -> None:
        """To a counter."""
        with self._lock:
            self._sums[name, labels] += value

    def set(self, name: str, value: float, *labels: str) -> None:
        """A gauge."""
        with self._lock:
            self._levels[name, labels] = value

    def shift(self, name: str, by: int, *labels: str) -> None:
        """A gauge, from where it is (0 at first)."""
        with self._lock:
            self._levels[name, labels] += by

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Into a histogram, at once: for what happens a few times a text."""
        histogram, keys = self._histograms[name]
        histogram.observe(value, dict(zip(keys, labels, strict=True)))

    def tally(self, name: str, value: float, *labels: str) -> None:
        """Into a tally: for what happens every round."""
        boundaries = self._metrics[name].boundaries
        with self._lock:
            tally = self._tallies.get((name, labels))
            if tally is None:
                tally = self._tallies[name, labels] = _Tally(len(boundaries) + 1)
            tally.counts[bisect_left(boundaries, value)] += 1
            tally.sum += value

    def flush(self) -> None:
        """Hand over what has come since the last time."""
        with self._lock:
            sums, self._sums = self._sums, defaultdict(float)
            tallies, self._tallies = self._tallies, {}
            levels = self._levels.copy()
        for key, tally in tallies.items():
            self._spread(key, tally, sums)
        for (name, labels), value in sums.items():
            if value > 0:
                counter, keys = self._counters[name]
                counter.inc(value, dict(zip(keys, labels, strict=True)))
        for (name, labels), value in levels.items():
            gauge, keys = self._gauges[name]
            gauge.set(value, dict(zip(keys, labels, strict=True)))

    def _make(self, backend: Backend, metric: Metric) -> None:
        name, description, labels = metric.name, metric.description, metric.labels
        match metric.kind:
            case "counter":
                self._counters[name] = backend.Counter(name, description, labels), labels
            case "gauge":
                self._gauges[name] = backend.Gauge(name, description, labels), labels
            case "histogram":
                self._histograms[name] = (
                    backend.Histogram(name, description, list(metric.boundaries), labels),
                    labels,
                )
            case "tally":
                bucket, with_bound = f"{name}_bucket", (*labels, "le")
                self._counters[bucket] = backend.Counter(bucket, description, with_bound), with_bound
                self._counters[f"{name}_sum"] = backend.Counter(f"{name}_sum", description, labels), labels

    def _spread(self, key: Key, tally: _Tally, sums: defaultdict[Key, float]) -> None:
        """A bucket counts all observations up to its bound, as Prometheus has it."""
        name, labels = key
        bounds = (*(f"{bound:g}" for bound in self._metrics[name].boundaries), "+Inf")
        for bound, count in zip(bounds, itertools.accumulate(tally.counts), strict=True):
            sums[f"{name}_bucket", (*labels, bound)] += count
        sums[f"{name}_sum", labels] += tally.sum


async def flush_forever(flush: Callable[[], None], every_s: float = FLUSH_EVERY_S) -> None:
    """Calls `flush` until it is cancelled, and then once more."""
    try:
        while True:
            await asyncio.sleep(every_s)
            flush()
    finally:
        flush()


def doubling(start: float, count: int) -> tuple[float, ...]:
    """Bounds from `start`, each twice the one before: a quantile is at most off by its bucket, a factor of 2."""
    return tuple(start * 2**step for step in range(count))
