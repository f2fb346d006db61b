"""The token log: what a round may add to a text, and how a text ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import rounds as rounds_module
from common.messages import Prefilled, Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, SpeculationStats, TokenLogprob

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
    message = log.propose(1, known=2, count=4, ahead=8)
    assert message.count == drafted and message.ahead == 5 - written
    assert (message.base, message.committed) == (2, tuple(log.tokens[2:]))


def test_a_replay_opens_with_all_that_was_written() -> None:
    log = new_log()
    log.commit((4,), verdict(log, 1, 5))
    assert log.open(7, "token").committed == (*PROMPT, 4, 5)
    assert log.open(7, "token").max_length == len(PROMPT) + 6


def scoring_log(max_tokens: int) -> TokenLog:
    sampling = SamplingParams(logprobs=0)
    return TokenLog(GenerationRequest(prompt=PROMPT, max_tokens=max_tokens, sampling=sampling, prompt_logprobs=True))


def prefilled(base: int, *tokens: int) -> Prefilled:
    return Prefilled(session=0, base=base, logprobs=tuple(TokenLogprob(token, -1.0) for token in tokens))


@pytest.mark.parametrize("max_tokens", [0, 5])
def test_a_prompt_whose_logprobs_are_wanted_is_taken_in_part_by_part(
    max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = scoring_log(max_tokens)
    assert (log.open(7, "token").committed, log.open(7, "token").prompt_length) == (PROMPT[:1], 3)
    assert (log.prefill(7).base, log.prefill(7).committed) == (1, PROMPT[1:])
    monkeypatch.setattr(rounds_module, "PREFILL_WINDOW", 1)
    assert log.prefill(7).committed == PROMPT[1:2]
    assert log.prefilling and not log.begun
    first = log.commit_prompt(prefilled(1, 2))
    assert (first.tokens, first.prompt_logprobs, first.finish_reason) == ((), prefilled(1, 2).logprobs, None)
    assert log.prefilling and log.begun
    assert log.open(7, "token").committed == PROMPT[:2], "a replay goes on where it was"
    last = log.commit_prompt(prefilled(2, 3))
    assert not log.prefilling and log.output == ()
    assert last.finish_reason == log.finish_reason == ("length" if max_tokens == 0 else None)
    assert log.stats.rounds == 0


@pytest.mark.parametrize("wrong", [prefilled(0, 1), prefilled(2, 3), prefilled(1), prefilled(1, 2, 3, 4)])
def test_logprobs_of_something_else_are_refused_and_change_nothing(wrong: Prefilled) -> None:
    log = scoring_log(5)
    with pytest.raises(ValueError, match="log-probabilities"):
        log.commit_prompt(wrong)
    assert log.tokens == [1] and not log.begun


def test_a_text_without_output_or_logprobs_is_over_before_it_begins() -> None:
    assert new_log(max_tokens=0).finish_reason == "length"
