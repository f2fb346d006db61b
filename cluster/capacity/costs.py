"""What was measured of models, machines and router: the costs that a plan is made from."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Any

import msgspec

from common.settings import Settings


class StepCosts(Settings, frozen=True, kw_only=True):
    """Of a model's forward passes, with all that an engine does beside them."""

    steps_ms: tuple[tuple[int, float], ...]
    """Tokens of all texts in a step, prompts included, and the milliseconds that it takes; in ascending order. Between
    two of them a straight line holds, which goes on beyond the last; a smaller step takes as long as the first."""

    def __post_init__(self) -> None:
        tokens = [size for size, _ in self.steps_ms]
        if not tokens or tokens[0] < 1 or any(a >= b for a, b in pairwise(tokens)):
            raise ValueError("steps_ms must name numbers of tokens from 1 on, in ascending order, one at least")
        if not all(taken > 0.0 for _, taken in self.steps_ms):
            raise ValueError("steps_ms must name positive times")

    def seconds(self, tokens: float) -> float:
        """Of a step; beyond the largest measured one a token costs no less than nothing."""
        points = self.steps_ms
        if tokens <= points[0][0] or len(points) == 1:
            return points[0][1] / 1e3
        above = min(bisect_left(points, tokens, key=lambda point: point[0]), len(points) - 1)
        (low, low_ms), (high, high_ms) = points[above - 1], points[above]
        slope = (high_ms - low_ms) / (high - low)
        if tokens > high:
            return (high_ms + max(0.0, slope) * (tokens - high)) / 1e3
        return (low_ms + slope * (tokens - low)) / 1e3


class DrafterCosts(StepCosts, frozen=True, kw_only=True):
    """And how good a language's drafter is."""

    acceptance: tuple[float, ...]
    """P(token k is accepted | all before it are), for k = 1, 2, …; a later token is as good as the last one here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.acceptance or not all(0.0 <= rate <= 1.0 for rate in self.acceptance):
            raise ValueError("acceptance must name probabilities, one at least")

    def rates(self, longest: int) -> list[float]:
        """For so many positions."""
        missing = longest - len(self.acceptance)
        return [*self.acceptance[:longest], *(self.acceptance[-1:] * missing)]


class Leg(Settings, frozen=True, kw_only=True):
    """What it takes the router to have a model's answer, beside the model's steps."""

    base_ms: float
    text_ms: float = 0.0
    """In addition, for each text of those that are answered together: all wait for the last."""

    def __post_init__(self) -> None:
        for name in ("base_ms", "text_ms"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")

    def seconds(self, texts: float) -> float:
        return (self.base_ms + texts * self.text_ms) / 1e3


class Coordination(Settings, frozen=True, kw_only=True):
    """Of both legs of a round, by default as measured on two slow cores without anything else to do."""

    verify: Leg = Leg(base_ms=0.45, text_ms=0.03)
    draft: Leg = Leg(base_ms=0.5)


class Costs(Settings, frozen=True, kw_only=True):
    verifier: StepCosts
    drafters: dict[str, DrafterCosts] = msgspec.field(default_factory=dict)
    """By language; one without is decoded plainly."""
    coordination: Coordination = Coordination()
    temperature: float | None = None
    """At which all of this was measured; None: at that of the traffic."""
    provenance: dict[str, Any] = msgspec.field(default_factory=dict)
    """Where it was measured; nothing depends on it."""

    def plain(self) -> Costs:
        """The same without any drafter."""
        return msgspec.structs.replace(self, drafters={})
