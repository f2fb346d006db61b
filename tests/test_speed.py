"""Speed over plain decoding: both ways on the same prompts, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from common.engine.decoding import Decoder, Generation
from common.types import GenerationRequest, SpeculationStats
from train.evaluation.acceptance import requests_at
from train.evaluation.intervals import Interval
from train.evaluation.speed import measure_speed
from train.recipe import EvaluateSettings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeDecoder:
    """Takes `seconds` for each text of ten tokens, and `warm_up` more the first time."""

    def __init__(self, name: str, clock: Clock, log: list[str], seconds: float) -> None:
        self._name, self._clock, self._log, self._seconds, self._warm_up = name, clock, log, seconds, 100.0

    def generate(self, requests: Sequence[GenerationRequest], _: Callable[[], Any] = lambda: None) -> list[Generation]:
        self._clock.now += self._warm_up + self._seconds * len(requests)
        self._warm_up = 0.0
        self._log.append(f"{self._name} {len(requests)}")
        return [Generation(tuple(range(10)), SpeculationStats(), "length") for _ in requests]


def test_speed_is_of_the_same_prompts_in_turns_without_the_first_pass() -> None:
    clock, log = Clock(), list[str]()
    plain, speculative = (
        cast(Decoder, FakeDecoder(name, clock, log, seconds)) for name, seconds in (("p", 0.5), ("s", 0.25))
    )
    settings = EvaluateSettings(prompts=5, speed_concurrency=2)
    requests = requests_at(1.0, [(1, 2)] * 5, settings, frozenset())
    speed = measure_speed(plain, speculative, requests, settings, clock)
    assert speed.temperature == 1.0
    taken = [(drafted.tokens, drafted.seconds, plainly.seconds) for drafted, plainly in speed.blocks]
    assert taken == [(20, 0.5, 1.0), (20, 0.5, 1.0), (10, 0.25, 0.5)]
    assert speed.speedup == Interval(value=2.0, low=2.0, high=2.0)
    assert log == ["p 2", "s 2", "p 2", "s 2", "s 2", "p 2", "p 1", "s 1"]
