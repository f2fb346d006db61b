"""Which objective a drafter is trained on."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from common.settings import Settings

Term = Literal["ce", "forward_kl", "reverse_kl", "tv", "lk"]
"""ce: cross-entropy with the labels; the others compare with the teacher's law: Kullback-Leibler divergence from the
teacher to the drafter (forward) or back (reverse), total variation (1 - the expected acceptance), LK-hybrid."""

FULL_LAW_TERMS: tuple[Term, ...] = ("reverse_kl", "tv", "lk")
"""They need the teacher's probability of every token, so a stored law of a few tokens will not do."""


class ScheduleSettings(Settings, frozen=True, kw_only=True):
    """Weights that change linearly from `terms` to `until`, and stay there."""

    until: dict[Term, float]
    """A term that is not named ends at 0."""
    until_step: int | None = None
    """Step, counted from 0, that is the first with these weights; None: the run's last."""

    def __post_init__(self) -> None:
        _check_weights("schedule.until", self.until)
        if self.until_step is not None and self.until_step < 1:
            raise ValueError(f"schedule.until_step is {self.until_step}, must be at least 1")


class ObjectiveSettings(Settings, frozen=True, kw_only=True):
    """A weighted sum of terms. A term of weight 0 costs its time and is logged without being trained on.

    Raises ValueError naming the setting if a term asks for more than the teacher gives.
    """

    terms: dict[Term, float] = msgspec.field(default_factory=lambda: {"ce": 1.0})
    """Weights at the first step."""
    schedule: ScheduleSettings | None = None
    """None: the weights stay as they are."""
    teacher: Literal["none", "online", "stored"] = "none"
    """online: the target runs beside the drafter and gives its full law; stored: a law of a few tokens a position,
    from distillation."""
    lk_eta: float = 3.0
    """How fast lk turns from forward KL to total variation as acceptance rises."""

    def __post_init__(self) -> None:
        _check_weights("terms", self.terms)
        if not 0 <= self.lk_eta < math.inf:
            raise ValueError(f"lk_eta is {self.lk_eta}, must be 0 or more")
        for name in self.names:
            if name != "ce" and self.teacher == "none":
                raise ValueError(f"objective term {name} compares with a teacher, but teacher is none")
            if name in FULL_LAW_TERMS and self.teacher == "stored":
                raise ValueError(f"objective term {name} needs the teacher's full law, but teacher is stored")

    @property
    def names(self) -> tuple[Term, ...]:
        """Every term that has a weight at some step."""
        later = self.schedule.until if self.schedule else {}
        return tuple(dict.fromkeys((*self.terms, *later)))

    def weights(self, step: int, steps: int) -> dict[Term, float]:
        """Of each term at `step` (from 0) of a run of `steps`."""
        if self.schedule is None:
            return dict(self.terms)
        last = self.schedule.until_step or max(1, steps - 1)
        share = min(1.0, step / last)
        first, until = self.terms, self.schedule.until
        return {name: (1 - share) * first.get(name, 0.0) + share * until.get(name, 0.0) for name in self.names}


def _check_weights(field: str, weights: dict[Term, float]) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{field}: the weight of {name} is {weight}, must be 0 or more")
    if not any(weights.values()):
        raise ValueError(f"{field} gives no term a weight above 0")
