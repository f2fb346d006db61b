"""Stands in for `ray.serve.metrics`: keeps what it is given."""

from __future__ import annotations

from collections import defaultdict

Series = tuple[str, tuple[tuple[str, str], ...]]


class Recorder:
    """A backend of `instruments`. Numbers are found by name and labels: `recorder.sum("n", language="de")`."""

    def __init__(self) -> None:
        self.values: defaultdict[Series, list[float]] = defaultdict(list)
        self.calls = 0

    def sum(self, name: str, **labels: str) -> float:
        """Of a counter."""
        return sum(self.values.get((name, tuple(sorted(labels.items()))), []))

    def level(self, name: str, **labels: str) -> float:
        """Of a gauge; 0 if it was never set."""
        return self.values.get((name, tuple(sorted(labels.items()))), [0.0])[-1]

    def observed(self, name: str, **labels: str) -> list[float]:
        """By a histogram."""
        return self.values.get((name, tuple(sorted(labels.items()))), [])

    def Counter(self, name: str, description: str, tag_keys: tuple[str, ...]) -> _Instrument:
        return _Instrument(self, name, tag_keys)

    Gauge = Counter

    def Histogram(self, name: str, description: str, boundaries: list[float], tag_keys: tuple[str, ...]) -> _Instrument:
        return _Instrument(self, name, tag_keys)


class _Instrument:
    def __init__(self, recorder: Recorder, name: str, keys: tuple[str, ...]) -> None:
        self._recorder = recorder
        self._name = name
        self._keys = keys

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self._keys)
        self._recorder.calls += 1
        self._recorder.values[self._name, tuple(sorted(tags.items()))].append(value)

    observe = set

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "Ray refuses it"
        self.set(value, tags)
