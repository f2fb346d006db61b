"""The publication gate: what is slower than plain decoding, or worse than the promoted one, is not published."""

from __future__ import annotations

import pytest

from common.types import SpeculationStats
from train.evaluation.acceptance import Acceptance
from train.evaluation.drafter import Evaluation
from train.evaluation.speed import Speed
from train.gate import NotWorthPublishing, check
from train.recipe import PublishSettings


def evaluation(lengths: dict[float, float], speedups: dict[float, float]) -> Evaluation:
    """By temperature."""
    return Evaluation(
        acceptance=[
            Acceptance(
                temperature=temperature,
                draft_length=4,
                prompts=1,
                stats=SpeculationStats(),
                mean_acceptance_length=length,
                acceptance_rate=0.5,
                accepted_per_position=[0.5],
            )
            for temperature, length in lengths.items()
        ],
        speed=[
            Speed(temperature=temperature, plain_tokens_per_second=100.0, speculative_tokens_per_second=100.0 * speedup)
            for temperature, speedup in speedups.items()
        ],
    )


FAST = evaluation({0.0: 3.0, 1.0: 2.0}, {0.0: 1.5, 1.0: 0.9})


def test_what_is_faster_at_one_temperature_is_published() -> None:
    check(PublishSettings(), FAST, None)


def test_what_is_nowhere_faster_than_plain_decoding_is_refused() -> None:
    slow = evaluation({0.0: 3.0, 1.0: 2.0}, {0.0: 0.8, 1.0: 0.99})
    with pytest.raises(NotWorthPublishing, match=r"0\.80 at temperature 0, 0\.99 at .* less than 1 .*--force"):
        check(PublishSettings(), slow, None)
    check(PublishSettings(require_speedup=None), slow, None)
    with pytest.raises(NotWorthPublishing, match=r"less than 1\.6"):
        check(PublishSettings(require_speedup=1.6), FAST, None)


def test_what_is_worse_than_the_promoted_one_is_refused() -> None:
    better = evaluation({0.0: 3.5, 1.0: 1.6}, {0.0: 1.1, 1.0: 1.1})
    with pytest.raises(NotWorthPublishing, match=r"2\.500, the promoted one has 2\.550 .*--force"):
        check(PublishSettings(), FAST, better)
    check(PublishSettings(), better, FAST)
    check(PublishSettings(), FAST, FAST)
    check(PublishSettings(keep_best=False), FAST, better)
