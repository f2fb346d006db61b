"""Acceptance position by position."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.drafting.acceptance_rates import AcceptanceRates


def test_acceptance_of_the_documented_example() -> None:
    rates = AcceptanceRates(window=8)
    rates.observe(drafted=4, accepted=2)
    assert rates.seen == 3
    assert rates.chained(0.5, weight=1.0, length=5) == [0.75, 0.875, 0.4375, 0.4375, 0.4375]
    assert rates.given([0.5, 0.5, 0.5, 0.5], weight=0.0) == [1.0, 1.0, 0.0, 0.5]


@settings(deadline=None)
@given(rounds=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60))
def test_until_the_window_is_full_rates_are_plain_means(rounds: list[tuple[int, int]]) -> None:
    rates = AcceptanceRates(window=100)
    for drafted, accepted in rounds:
        rates.observe(drafted, min(drafted, accepted))
    for position, rate in enumerate(rates.given([9.0] * 6, weight=0.0)):
        hits = [a > position for d, a in ((d, min(d, a)) for d, a in rounds) if d > position and a >= position]
        assert rate == (pytest.approx(sum(hits) / len(hits)) if hits else 9.0)


def test_a_prior_is_gone_when_the_window_is_full() -> None:
    rates = AcceptanceRates(window=4)
    for _ in range(4):
        rates.observe(drafted=1, accepted=0)
    assert rates.given([0.9], weight=100.0) == [0.0]
