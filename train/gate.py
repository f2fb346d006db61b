"""Whether a drafter may be published, by what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence

from train.evaluation.acceptance import Acceptance
from train.evaluation.drafter import Evaluation, mean_length
from train.evaluation.improvement import Improvement
from train.recipe import PublishSettings

ANYWAY = "--force publishes it anyway"


class NotWorthPublishing(ValueError):
    """A drafter that the gate refuses; the message says why."""


def check_improvement(found: Improvement) -> None:
    """Raise NotWorthPublishing unless more is certainly accepted of it on traffic, and not certainly less elsewhere.

    Certainly: the lower end of the interval on held-out traffic is above 0, the upper end of the one on the ordinary
    test text is not below 0.
    """
    if found.traffic.difference.low <= 0:
        raise NotWorthPublishing(f"not certainly better on held-out traffic: {found.traffic} ({ANYWAY})")
    if found.ordinary.difference.high < 0:
        raise NotWorthPublishing(f"certainly worse on the ordinary test text: {found.ordinary} ({ANYWAY})")


def check(settings: PublishSettings, own: Evaluation, promoted: Sequence[Acceptance] | None) -> None:
    """Raise NotWorthPublishing if the drafter is slower than plain decoding, or worse than the promoted one.

    Slower means that at every temperature even the upper end of the interval is below `require_speedup`. The doubt is
    the drafter's: a server measures what drafting brings and stops where it brings nothing, so one that is published
    without need costs little, while one that is refused by a slow minute of this machine is lost. The largest of
    several noisy ratios alone would let through whatever is measured often enough.

    `promoted` is what is accepted of the drafter that it would replace, on the same prompts; None if there is none.
    """
    wanted = settings.require_speedup
    if wanted is not None and all(at.speedup.high < wanted for at in own.speed):
        measured = ", ".join(f"{at.speedup} at temperature {at.temperature:g}" for at in own.speed)
        raise NotWorthPublishing(f"speed over plain decoding is {measured}, all below {wanted:g} ({ANYWAY})")
    if settings.keep_best and promoted is not None and mean_length(own.acceptance) < mean_length(promoted):
        lengths = f"{mean_length(own.acceptance):.3f}, the promoted one has {mean_length(promoted):.3f}"
        raise NotWorthPublishing(f"mean acceptance length is {lengths} ({ANYWAY})")
