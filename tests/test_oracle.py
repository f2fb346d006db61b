"""The oracle: speculative output equals plain output, token for token, whatever the drafter does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from common.engine import reference
from common.engine.decoding import Decoder
from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.sessions import Session
from common.types import TokenIds

TEMPERATURES = (0.0, 1.0)


@cache
def target(shape: str = "llama") -> PreTrainedModel:
    return tiny.model(shape)


@cache
def plain(shape: str, temperature: float, count: int) -> tuple[TokenIds, ...]:
    """What the reference writes: transformers' own attention, no cache, one sequence at a time."""
    logits_of = reference.logits_of(tiny.model(shape))
    return tuple(reference.generate_plain(logits_of, r) for r in tiny.requests(count, temperature=temperature))


class _Adversarial(Drafting):
    """Drafts what the model thinks least likely."""

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list:
        return super().advance(sessions, [-rows for rows in logits])


class _Stale(Drafting):
    """Never learns what was committed beyond the prompt: drafts on from its own text."""

    def take(self, session: Session, request, vocabulary: int):  # type: ignore[no-untyped-def]
        mine = tuple(session.tokens[request.base :])
        stale = (mine + request.committed)[: len(request.committed)]
        return super().take(session, _replace(request, committed=stale), vocabulary)


def _replace(request, **changes):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(request, **changes)


def _drafter(kind: str, shape: str) -> Engine:
    roles = {"adversarial": _Adversarial, "stale": _Stale}
    drafting = tiny.model(shape, seed=99) if kind == "random" else tiny.perturbed(target(shape), 0.05)
    return Engine(ModelRunner(drafting, kv_tokens=4096), roles.get(kind, Drafting)())


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_engine_without_drafter_equals_the_reference(shape: str, temperature: float) -> None:
    decoder = Decoder(tiny.verifier(target(shape), prefill_chunk=5), concurrency=4)
    outputs = [g.output for g in decoder.generate(tiny.requests(6, temperature=temperature))]
    assert tuple(outputs) == plain(shape, temperature, 6)


@pytest.mark.parametrize("kind", ["good", "random", "adversarial", "stale"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("draft_length", [1, 2, 3, 4, 5, 6, 7, 8])
def test_speculative_equals_plain(kind: str, temperature: float, batch: int, draft_length: int) -> None:
    engine, drafter = tiny.verifier(target()), _drafter(kind, "llama")
    decoder = Decoder(engine, drafter, draft_length=draft_length, concurrency=batch)
    generations = decoder.generate(tiny.requests(8, temperature=temperature))
    assert tuple(g.output for g in generations) == plain("llama", temperature, 8)
    engine.check_integrity()
    drafter.check_integrity()
    assert engine.num_sessions == drafter.num_sessions == 0


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_speculative_equals_plain_for_every_shape(shape: str, temperature: float) -> None:
    decoder = Decoder(tiny.verifier(target(shape)), _drafter("good", shape), draft_length=3, concurrency=3)
    generations = decoder.generate(tiny.requests(6, temperature=temperature))
    assert tuple(g.output for g in generations) == plain(shape, temperature, 6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_good_drafter_is_accepted_more_than_a_bad_one(temperature: float) -> None:
    def mean_acceptance_length(kind: str) -> float:
        decoder = Decoder(tiny.verifier(target()), _drafter(kind, "llama"), draft_length=4)
        generations = decoder.generate(tiny.requests(8, temperature=temperature))
        return sum(g.stats.output_tokens for g in generations) / sum(g.stats.rounds for g in generations)

    assert mean_acceptance_length("good") > 2.0 > mean_acceptance_length("random") >= 1.0


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_greedy_equals_transformers_generate(shape: str) -> None:
    hugging_face = tiny.model(shape)
    requests = tiny.requests(4, temperature=0.0, max_tokens=24)
    decoder = Decoder(tiny.verifier(tiny.model(shape)), _drafter("good", shape), draft_length=3)
    for request, generation in zip(requests, decoder.generate(requests), strict=True):
        expected = hugging_face.generate(
            torch.tensor([request.prompt]), do_sample=False, max_new_tokens=request.max_tokens, eos_token_id=2
        )
        assert generation.output == tuple(expected[0, len(request.prompt) :].tolist())


@settings(max_examples=25, deadline=None)
@given(drafts=st.lists(st.lists(st.integers(-5, tiny.VOCABULARY + 5), max_size=6), min_size=40, max_size=40))
def test_any_draft_at_all_leaves_the_text_unchanged(drafts: list[list[int]]) -> None:
    """Also drafts with ids that do not exist, or too long for the text."""
    from common.messages import Verdict
    from common.rounds import TokenLog

    request = tiny.requests(1, temperature=1.0)[0]
    engine, log = tiny.verifier(target()), TokenLog(request)
    engine.handle(0, log.open(0, ""))
    for draft in drafts:
        if log.finish_reason is not None:
            break
        engine.handle(0, log.verify(0, tuple(draft)))
        replies = []
        while not replies:
            replies = engine.step()
        assert isinstance(replies[0][1], Verdict)
        log.commit(tuple(draft), replies[0][1])
    assert log.output == plain("llama", 1.0, 1)[0][: len(log.output)]
    assert log.finish_reason is not None or len(log.output) >= len(drafts)


@pytest.mark.parametrize("draft_length", [1, 3])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_reference_coupled_equals_reference_plain(draft_length: int, temperature: float) -> None:
    logits_of = reference.logits_of(tiny.model())
    for request, expected in zip(
        tiny.requests(3, temperature=temperature), plain("llama", temperature, 3), strict=True
    ):
        output = reference.generate_coupled(logits_of, lambda tokens: (tokens[-1], 5, 7)[:draft_length], request)
        assert output == expected
