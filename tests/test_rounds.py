"""The token log: what a round may add to a text, and how a text ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, SpeculationStats

STOP = 9
PROMPT = (1, 2, 3)


def new_log(max_tokens: int = 6) -> TokenLog:
    return TokenLog(
        GenerationRequest(
            prompt=PROMPT, max_tokens=max_tokens, sampling=SamplingParams(), stop_token_ids=frozenset({STOP})
        )
    )


def verdict(log: TokenLog, accepted: int, token: int) -> Verdict:
    return Verdict(session=0, base=len(log.tokens), accepted=accepted, next_token=token)


@given(
    max_tokens=st.integers(1, 12),
    rounds=st.lists(st.tuples(st.lists(st.integers(0, STOP), max_size=5), st.integers(0, 5), st.integers(0, STOP))),
)
def test_a_text_is_the_kept_tokens_up_to_its_first_stop_or_its_limit(
    max_tokens: int, rounds: list[tuple[list[int], int, int]]
) -> None:
    log, written = new_log(max_tokens), []
    for draft, accepted, token in rounds:
        if log.finish_reason is not None:
            break
        accepted = min(accepted, len(draft))
        progress = log.commit(tuple(draft), verdict(log, accepted, token))
        written += [*draft[:accepted], token]
        assert progress.stats == log.stats and progress.finish_reason == log.finish_reason
    stop = written.index(STOP) + 1 if STOP in written else len(written)
    expected = written[: min(stop, max_tokens)]
    assert list(log.output) == expected
    assert log.stats.output_tokens == len(expected) >= log.stats.accepted_tokens
    reason = "stop" if expected and expected[-1] == STOP else "length" if len(expected) == max_tokens else None
    assert log.finish_reason == reason


def test_the_statistics_of_the_documented_example() -> None:
    log = new_log(max_tokens=100)
    for accepted in (2, 4, 0):
        log.commit((4, 5, 6, 7), verdict(log, accepted, 8))
    assert log.stats == SpeculationStats(rounds=3, drafted_tokens=12, accepted_tokens=6, output_tokens=9)
    assert (log.stats.mean_acceptance_length, log.stats.acceptance_rate) == (3.0, 0.5)


@pytest.mark.parametrize("wrong", [{"base": 2}, {"base": 4}, {"accepted": 3}])
def test_a_verdict_about_something_else_is_refused_and_changes_nothing(wrong: dict[str, int]) -> None:
    log = new_log()
    with pytest.raises(ValueError, match="verdict"):
        log.commit((4, 5), Verdict(**{"session": 0, "base": 3, "accepted": 1, "next_token": 4, **wrong}))
    assert log.output == () and log.stats.rounds == 0


@pytest.mark.parametrize(("written", "drafted"), [(0, 4), (3, 2), (5, 0)])
def test_the_last_token_of_a_text_is_never_drafted(written: int, drafted: int) -> None:
    log = new_log(max_tokens=6)
    for _ in range(written):
        log.commit((), verdict(log, 0, 4))
    message = log.propose(1, known=2, count=4)
    assert message.count == drafted
    assert (message.base, message.committed) == (2, tuple(log.tokens[2:]))


def test_a_replay_opens_with_all_that_was_written() -> None:
    log = new_log()
    log.commit((4,), verdict(log, 1, 5))
    assert log.open(7, "token").committed == (*PROMPT, 4, 5)
    assert log.open(7, "token").max_length == len(PROMPT) + 6
