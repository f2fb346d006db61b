"""What evaluation makes of decoded texts."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from common.engine.decoding import Decoder
from train.evaluation.acceptance import accepted_per_position, measure_acceptance
from train.recipe import EvaluateSettings

ROUND = st.integers(0, 5).flatmap(lambda drafted: st.tuples(st.just(drafted), st.integers(0, drafted)))


def test_the_documented_example() -> None:
    assert accepted_per_position([(2, 2), (2, 0), (1, 1)]) == [2 / 3, 1 / 2]


@given(st.lists(ROUND, min_size=1))
def test_positions_add_up_to_the_accepted_tokens(rounds: list[tuple[int, int]]) -> None:
    shares = accepted_per_position(rounds)
    drafted = [sum(d > position for d, _ in rounds) for position in range(len(shares))]
    assert all(drafted) and len(shares) == max(d for d, _ in rounds)
    accepted = sum(share * count for share, count in zip(shares, drafted, strict=True))
    assert accepted == pytest.approx(sum(a for _, a in rounds))


def test_a_target_that_drafts_for_itself_is_accepted_at_every_position() -> None:
    decoder = Decoder(tiny.verifier(tiny.model()), tiny.drafter(tiny.model()), draft_length=3)
    prompts = [request.prompt for request in tiny.requests(4, temperature=0.0)]
    settings = EvaluateSettings(prompts=4, draft_length=3, max_tokens=9)
    for measured in measure_acceptance(decoder, prompts, settings, frozenset()):
        assert measured.accepted_per_position == [1.0, 1.0, 1.0]
        assert measured.stats.accepted_tokens == measured.stats.drafted_tokens
