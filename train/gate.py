"""Whether a drafter may be published, by what was measured of it."""

from __future__ import annotations

from train.evaluation.drafter import Evaluation
from train.recipe import PublishSettings

ANYWAY = "--force publishes it anyway"


class NotWorthPublishing(ValueError):
    """A drafter that the gate refuses; the message says why."""


def check(settings: PublishSettings, own: Evaluation, promoted: Evaluation | None) -> None:
    """Raise NotWorthPublishing if the drafter is slower than plain decoding, or worse than the promoted one.

    `promoted` is the evaluation of the drafter that it would replace, on the same prompts; None if there is none.
    """
    wanted = settings.require_speedup
    if wanted is not None and max(at.speedup for at in own.speed) < wanted:
        measured = ", ".join(f"{at.speedup:.2f} at temperature {at.temperature:g}" for at in own.speed)
        raise NotWorthPublishing(f"speed over plain decoding is {measured}, less than {wanted:g} ({ANYWAY})")
    if settings.keep_best and promoted is not None and own.mean_length < promoted.mean_length:
        lengths = f"{own.mean_length:.3f}, the promoted one has {promoted.mean_length:.3f}"
        raise NotWorthPublishing(f"mean acceptance length is {lengths} ({ANYWAY})")
