"""When texts meet in a verifier's steps: how long their rounds are, by how long they are away in between."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cluster.capacity.costs import StepCosts
from serve.stream.gathering import worth_waiting

TURNS = 64
"""More than it takes until nothing changes any more."""


def meeting(
    away: Sequence[float], texts: Sequence[float], run: Sequence[float], steps: StepCosts
) -> tuple[list[float], float]:
    """Seconds of each group's rounds, and of a step.

    Args:
        away: seconds between two steps of a group's texts.
        texts: of each group.
        run: tokens of each group in a step that has all of its texts.
    """
    every = [1] * len(away)
    for _ in range(TURNS):
        step_s = steps.seconds(sum(tokens / n for tokens, n in zip(run, every, strict=True)))
        patience = worth_waiting(zip(away, texts, strict=True), step_s)
        # Who comes too late for a step is in the one after it, or in a later one.
        in_time = [one for one, n in zip(away, every, strict=True) if n == 1 and one <= patience]
        if not in_time:
            return _apart(away, texts, run, steps)
        cycle = max(in_time) + step_s
        found = [1 if one <= patience else math.ceil((one + step_s) / cycle) for one in away]
        if found == every:
            break
        every = found
    return [n * cycle for n in every], step_s


def _apart(
    away: Sequence[float], texts: Sequence[float], run: Sequence[float], steps: StepCosts
) -> tuple[list[float], float]:
    """The same where nobody is waited for: a text meets a step that is under way half through."""
    others, step_s = 1.0 - 1.0 / max(1.0, sum(texts)), steps.seconds(1)
    for _ in range(TURNS):
        seconds = [one + (1.0 + others / 2) * step_s for one in away]
        alone = [tokens / number for tokens, number in zip(run, texts, strict=True)]
        present = sum(tokens * step_s / taken for tokens, taken in zip(run, seconds, strict=True))
        step_s = steps.seconds(max(mean(alone, texts), present))
    return seconds, step_s


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
