"""The publication gate: what is slower than plain decoding, or worse than the promoted one, is not published."""

from __future__ import annotations

import pytest

from common.types import SpeculationStats
from train.evaluation.acceptance import Acceptance
from train.evaluation.drafter import Evaluation
from train.evaluation.paired import Timed
from train.evaluation.speed import Speed
from train.gate import NotWorthPublishing, check
from train.recipe import PublishSettings


def evaluation(lengths: dict[float, float], ratios: dict[float, list[float]]) -> Evaluation:
    """Mean acceptance lengths, and of every block the speed over plain decoding, by temperature."""
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
            Speed(
                temperature=temperature,
                blocks=[(Timed(tokens=10, seconds=1 / ratio), Timed(tokens=10, seconds=1.0)) for ratio in blocks],
            )
            for temperature, blocks in ratios.items()
        ],
    )


LENGTHS = {0.0: 3.0, 1.0: 2.0}
FAST = evaluation(LENGTHS, {0.0: [1.4, 1.5, 1.6], 1.0: [0.9] * 3})


def test_what_is_faster_at_one_temperature_is_published() -> None:
    check(PublishSettings(), FAST, None)


def test_what_is_certainly_slower_than_plain_decoding_everywhere_is_refused() -> None:
    slow = evaluation(LENGTHS, {0.0: [0.76, 0.8, 0.84], 1.0: [0.99] * 3})
    shown = r"0\.799 \[0\.\d+, 0\.\d+\] at temperature 0, 0\.990 \[0\.990, 0\.990\] at .* all below 1 .*--force"
    with pytest.raises(NotWorthPublishing, match=shown):
        check(PublishSettings(), slow, None)
    check(PublishSettings(require_speedup=None), slow, None)
    with pytest.raises(NotWorthPublishing, match=r"all below 1\.8"):
        check(PublishSettings(require_speedup=1.8), FAST, None)


def test_what_may_be_faster_has_the_benefit_of_the_doubt() -> None:
    doubtful = evaluation(LENGTHS, {0.0: [0.6, 0.9, 1.3], 1.0: [0.9] * 3})
    assert doubtful.speed[0].speedup.value < 1 < doubtful.speed[0].speedup.high
    check(PublishSettings(), doubtful, None)


def test_a_manifest_tells_the_interval() -> None:
    metrics = FAST.metrics()
    assert 1.2 < metrics["speedup_low/T=0"] < 1.3 < metrics["speedup/T=0"] < 1.7 < metrics["speedup_high/T=0"] < 1.8


def test_what_is_worse_than_the_promoted_one_is_refused() -> None:
    better = evaluation({0.0: 3.5, 1.0: 1.6}, {0.0: [1.1], 1.0: [1.1]})
    with pytest.raises(NotWorthPublishing, match=r"2\.500, the promoted one has 2\.550 .*--force"):
        check(PublishSettings(), FAST, better.acceptance)
    check(PublishSettings(), better, FAST.acceptance)
    check(PublishSettings(), FAST, FAST.acceptance)
    check(PublishSettings(keep_best=False), FAST, better.acceptance)
