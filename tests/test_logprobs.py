"""Log-probabilities: the model's own, for those who ask, the same with speculation and without."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import msgspec
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.engine import reference
from common.engine.decoding import Decoder
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.session import Key, Session
from common.engine.verification import Verification
from common.logprobs import report
from common.messages import Prefilled, Verdict
from common.types import GenerationRequest, TokenLogprob


@settings(deadline=None)
@given(
    # Few different values, so that there are ties.
    rows=st.lists(st.lists(st.integers(0, 3), min_size=9, max_size=9), min_size=1, max_size=4),
    count=st.integers(0, 12),
)
def test_the_likeliest_come_first_and_of_equal_ones_the_lower_id(rows: list[list[int]], count: int) -> None:
    [reported] = report([torch.tensor(rows, dtype=torch.bfloat16)], [[row[0] for row in rows]], [count])
    for row, entry in zip(rows, reported, strict=True):
        total = math.log(sum(math.exp(logit) for logit in row))
        expected = sorted(range(9), key=lambda token: (-row[token], token))[:count]
        assert [token for token, _ in entry.top] == expected
        assert [value for _, value in entry.top] == pytest.approx([row[token] - total for token in expected])
        assert entry.token == row[0] and entry.logprob == pytest.approx(row[row[0]] - total)


def test_only_those_who_ask_are_told_and_only_about_their_output() -> None:
    rows = torch.arange(12.0).view(4, 3)
    reported = report([rows[:2], rows[:3], rows], [[0], [0, 1], [2, 2, 2]], [None, 0, 1])
    assert [len(entries) for entries in reported] == [0, 2, 3]
    assert [entry.top for entry in reported[1]] == [(), ()]
    assert [entry.token for entry in reported[1]] == [0, 1]
    assert all(entry.top == ((2, entry.logprob),) for entry in reported[2])


def test_many_rows_are_reported_like_each_alone() -> None:
    rows = torch.randn(150, 30, generator=torch.Generator().manual_seed(0))
    tokens = [row % 30 for row in range(150)]
    (whole,) = report([rows], [tokens], [3])
    assert whole == tuple(
        entry for row, token in zip(rows, tokens, strict=True) for entry in report([row[None]], [[token]], [3])[0]
    )


class _Recording(Verification):
    """Keeps what the verdicts report."""

    def __init__(self) -> None:
        self.reported: defaultdict[Key, list[TokenLogprob]] = defaultdict(list)

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict | Prefilled]:
        verdicts = super().advance(sessions, logits)
        for session, verdict in zip(sessions, verdicts, strict=True):
            assert isinstance(verdict, Verdict)
            assert len(verdict.logprobs) == (0 if session.sampling.logprobs is None else verdict.accepted + 1)
            self.reported[session.key] += verdict.logprobs
        return verdicts


def requests(temperature: float) -> list[GenerationRequest]:
    """Some ask for none, some for none but the token's own, some for several; all change their logits."""
    changes = {"presence_penalty": 1.0, "repetition_penalty": 1.3, "logit_bias": ((5, 4.0),)}
    return [
        msgspec.structs.replace(
            request, sampling=msgspec.structs.replace(request.sampling, logprobs=logprobs, **changes)
        )
        for request, logprobs in zip(
            tiny.requests(5, temperature=temperature), (None, 0, 1, 5, tiny.VOCABULARY // 3), strict=True
        )
    ]


@cache
def plain(temperature: float) -> list[tuple[TokenLogprob, ...]]:
    target = reference.logits_of(tiny.model())
    return [reference.logprobs(target, r, reference.generate_plain(target, r)) for r in requests(temperature)]


@pytest.mark.parametrize("draft_length", [0, 1, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_they_equal_the_plain_models_with_speculation_and_without(draft_length: int, temperature: float) -> None:
    role = _Recording()
    target = Engine(ModelRunner(tiny.model(), kv_tokens=4096), role)
    drafter = tiny.drafter(tiny.perturbed(tiny.model(), 0.05)) if draft_length else None
    decoder = Decoder(target, drafter, draft_length=draft_length, concurrency=3)
    generations = decoder.generate(requests(temperature))
    for number, (generation, expected) in enumerate(zip(generations, plain(temperature), strict=True)):
        assert generation.output == tuple(entry.token for entry in expected)
        if number == 0:
            assert role.reported[number] == []
            continue
        # A verdict may reach beyond the stop token, where the text ends.
        for entry, wanted in zip(role.reported[number][: len(expected)], expected, strict=True):
            assert entry.token == wanted.token
            assert entry.logprob == pytest.approx(wanted.logprob, rel=0, abs=1e-9)
            assert [token for token, _ in entry.top] == [token for token, _ in wanted.top]
            values = [value for _, value in wanted.top]
            assert [value for _, value in entry.top] == pytest.approx(values, rel=0, abs=1e-9)
