"""What a round promises, by how much is drafted and how often it is drafted already."""

from __future__ import annotations

import pytest
from draft_length_simulation import MAX_LENGTH, Simulation, World, fixed
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.drafting.outlook import MOST_AHEAD, NO_DRAFT, DraftLength, RoundCosts, among_others, outlook
from serve.drafting.settings import SpeculationSettings

AHEAD = World(run_ahead=True)
SERIAL_IDEAL = World().throughput(World().best)
LEGS_ALONE = SpeculationSettings(doubt=0.0)
"""For runs too short to spend any of it on the A/B test."""


def costs(share: float, *, token_s: float = 1.5, sessions: int = 1, longest: int = 8) -> RoundCosts:
    drafted = [25.0 + token_s * n for n in range(longest + 1)]
    return RoundCosts(drafted=drafted, at_hand=[25.0] * (longest + 1), share=share, sessions=sessions)


def test_without_drafts_at_hand_a_length_promises_its_tokens_by_its_seconds() -> None:
    values, seconds, ahead = outlook([0.8, 0.5], costs(0.0))
    assert values == pytest.approx([1 / 25, 1.8 / 26.5, 2.2 / 28])
    assert seconds == [25.0, 26.5, 28.0]
    assert ahead == 2, "that cost nothing"


def test_half_of_the_drafts_at_hand() -> None:
    values, seconds, _ = outlook([0.8, 0.5], costs(0.5))
    assert values == pytest.approx([1 / 25, (2.2 + 1.8) / (25 + 26.5), 2.2 / 26.5])
    assert seconds == [25.0, 25.75, 26.5]


def test_texts_in_step_wait_for_each_others_drafts_so_those_are_shorter() -> None:
    values, seconds, _ = outlook([0.8, 0.5], costs(0.5, sessions=2))
    assert values == pytest.approx([1 / 25, (2.2 + 1.8) / 2 / (25 + 0.75 * 1.5), 2.2 / (25 + 0.75 * 3)])
    assert seconds == [25.0, 25 + 0.75 * 1.5, 25 + 0.75 * 3]
    lengths = []
    for sessions in (1, 2, 32):
        values = outlook([0.8] * 8, costs(0.6, sessions=sessions)).values
        lengths.append(values.index(max(values)))
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1] > 0


def test_a_draft_at_hand_is_no_longer_than_verifying_it_pays() -> None:
    dear = RoundCosts(drafted=[10.0, 13.0, 16.0], at_hand=[10.0, 13.0, 16.0], share=0.5, sessions=1)
    assert outlook([0.9, 0.2], dear).ahead == 1


def test_drafts_are_asked_for_ahead_while_few_texts_wait_for_each_other() -> None:
    assert DraftLength.of(3, 7, sessions=MOST_AHEAD, promise=1.5) == (3, 7, 1.5)
    assert DraftLength.of(5, 0, sessions=1) == DraftLength(5, 5)
    assert DraftLength.of(3, 7, sessions=MOST_AHEAD + 1) == DraftLength(3, 0)
    assert DraftLength.of(0, 7, sessions=1) == NO_DRAFT


def test_nothing_may_be_drafted() -> None:
    assert outlook([], costs(0.5)) == ([1 / 25], [25.0], 0)


def test_a_single_text_expects_what_it_expects() -> None:
    alone = outlook([0.8, 0.5], costs(0.0))
    assert among_others(alone, costs(0.0), 1) == alone


def test_who_drafts_less_than_the_others_waits_for_them_and_saves_verification_only() -> None:
    dear = RoundCosts(drafted=[10.0, 15.0, 18.0], at_hand=[10.0, 12.0, 14.0], share=0.0, sessions=4)
    values, seconds, _ = among_others(outlook([0.8, 0.5], dear), dear, 2)
    assert seconds == [10.0 + 4.0, 12.0 + 4.0, 18.0]
    assert values == pytest.approx([1 / 14, 1.8 / 16, 2.2 / 18])


def test_who_drafts_more_than_the_others_makes_all_of_them_wait() -> None:
    _, seconds, _ = among_others(outlook([0.8, 0.5], costs(0.0, sessions=4)), costs(0.0, sessions=4), 1)
    assert seconds == [26.5, 26.5, 26.5 + 4 * 1.5]
    values, _, _ = among_others(outlook([0.8, 0.5], costs(0.0, sessions=4)), costs(0.0, sessions=4), 0)
    assert values == pytest.approx([1 / 25, 1.8 / (25 + 4 * 1.5), 2.2 / (25 + 4 * 3.0)])


@given(
    rates=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    share=st.floats(0.0, 1.0),
    token_s=st.floats(0.0, 10.0),
)
def test_drafts_at_hand_make_no_length_slower(rates: list[float], share: float, token_s: float) -> None:
    some, none = (outlook(rates, costs(s, token_s=token_s)).values for s in (share, 0.0))
    assert max(some) >= max(none) * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_one_stream_of_a_7b_model_beats_what_serial_speculation_can_reach(seed: int) -> None:
    run = Simulation(AHEAD, seed=seed).run(1000)
    assert run.tokens_per_s >= 1.15 * SERIAL_IDEAL


@pytest.mark.parametrize("seed", range(3))
def test_lengths_come_near_the_best_fixed_one_although_drafts_are_at_hand(seed: int) -> None:
    best = max(fixed(AHEAD, n, texts=1, rounds=1000) for n in range(MAX_LENGTH + 1))
    assert Simulation(AHEAD, seed=seed).run(1000).tokens_per_s >= 0.96 * best


def test_lengths_grow_when_drafts_are_dear_but_at_hand() -> None:
    world = World(draft_s=6e-3, step_s=lambda tokens: 60e-3)
    waited, hidden = (
        Simulation(World(**{**vars(world), "run_ahead": run_ahead}), LEGS_ALONE).run(600) for run_ahead in (False, True)
    )
    assert hidden.mean_length(last=300) > waited.mean_length(last=300) + 0.5


@settings(deadline=None, max_examples=10, derandomize=True)
@given(
    base_ms=st.floats(5.0, 50.0),
    token_ms=st.floats(0.0, 2.0),
    draft_ms=st.floats(0.5, 5.0),
    acceptance=st.floats(0.0, 1.0),
    runner_up=st.floats(0.0, 1.0),
)
def test_running_ahead_is_never_slower(
    base_ms: float, token_ms: float, draft_ms: float, acceptance: float, runner_up: float
) -> None:
    def run(run_ahead: bool) -> float:
        world = World(
            step_s=lambda tokens: (base_ms + token_ms * tokens) * 1e-3,
            draft_s=draft_ms * 1e-3,
            acceptance=acceptance,
            runner_up=runner_up,
            run_ahead=run_ahead,
        )
        simulation = Simulation(world, LEGS_ALONE)
        simulation.run(150)
        return simulation.run(300).tokens_per_s

    # Where drafting hardly pays, the two try it at other times: that is luck, of a few percent.
    assert run(True) >= 0.94 * run(False)
