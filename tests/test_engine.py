"""The engine's parts: memory that is never leaked, batches that change nothing, prompts in chunks, waiting sessions."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.engine import reference
from common.engine.batch import Feed
from common.engine.cache import BlockPool, CachedSequence, CacheIntegrityError
from common.engine.decoding import Decoder, DecodingError
from common.engine.runner import ModelRunner
from common.messages import Close, Draft, Failure, Open, Propose, Score, Scored, Verdict, Verify
from common.rounds import TokenLog
from common.types import SamplingParams


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=40))
def test_blocks_are_never_leaked_or_lent_twice(actions: list[tuple[bool, int]]) -> None:
    pool, held = BlockPool(256, block_size=8), []
    for reserve, number in actions:
        if reserve:
            blocks = pool.reserve(number)
            assert (blocks is None) == (-(-number // 8) > pool.num_blocks - sum(map(len, held)))
            held += [blocks] if blocks else []
        elif held:
            pool.release(held.pop(number % len(held)))
        pool.check_integrity()
        assert len({b for blocks in held for b in blocks}) == sum(map(len, held))


def test_releasing_twice_is_seen() -> None:
    pool = BlockPool(64)
    blocks = pool.reserve(20)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(CacheIntegrityError):
        pool.release(blocks)


@given(cached=st.lists(st.integers(0, 2), max_size=8), tokens=st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_only_the_common_prefix_is_kept_and_never_the_last_token(cached: list[int], tokens: list[int]) -> None:
    sequence = CachedSequence([0], 16, torch.device("cpu"))
    sequence.cached = list(cached)
    sequence.keep_common_prefix(tokens)
    kept = sequence.length
    assert sequence.cached == tokens[:kept] == cached[:kept] and kept < len(tokens)
    assert kept == len(tokens) - 1 or kept == len(cached) or cached[kept] != tokens[kept]


_MODELS = {shape: tiny.model(shape) for shape in ("llama", "gemma2")}
_REFERENCES = {shape: reference.logits_of(tiny.model(shape)) for shape in _MODELS}


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from(sorted(_MODELS)),
    texts=st.lists(st.lists(st.integers(3, 60), min_size=2, max_size=40), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 39), min_size=5, max_size=5),
)
def test_packed_logits_equal_the_plain_model(shape: str, texts: list[list[int]], cuts: list[int]) -> None:
    """Whatever is cached, however long the others are, wherever the prompt is cut, and after a rollback."""
    runner = ModelRunner(_MODELS[shape], kv_tokens=1024)
    sequences = [runner.begin(len(text) + 1) for text in texts]
    halves = [min(cut, len(text) - 1) for text, cut in zip(texts, cuts, strict=False)]
    runner.forward([Feed(s, t[:h], 0) for s, t, h in zip(sequences, texts, halves, strict=True)])
    for _ in range(2):
        logits = runner.forward([Feed(s, t[h:], len(t) - h) for s, t, h in zip(sequences, texts, halves, strict=True)])
        for text, half, rows in zip(texts, halves, logits, strict=True):
            expected = _REFERENCES[shape](tuple(text))[half:]
            torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
        for sequence, half in zip(sequences, halves, strict=True):
            sequence.rollback(half)


def _open(session: int, *, prompt: tuple[int, ...] = (3, 4, 5), max_length: int = 32) -> Open:
    return Open(
        session=session,
        token="",
        committed=prompt,
        prompt_length=len(prompt),
        max_length=max_length,
        sampling=SamplingParams(),
    )


def test_a_session_without_room_waits_and_is_admitted_when_another_closes() -> None:
    engine = tiny.verifier(tiny.model(), kv_tokens=64)
    for session in range(3):
        engine.handle(session, _open(session))
        engine.handle(session, Verify(session=session, base=3))
    assert sorted(key for key, _ in engine.step()) == [0, 1]
    assert not engine.busy
    engine.handle(0, Close(session=0))
    assert engine.busy
    assert [key for key, _ in engine.step()] == [2]
    for session in range(3):
        engine.handle(session, Close(session=session))
        engine.handle(session, Close(session=session))
    engine.check_integrity()


def test_a_long_prompt_does_not_hold_up_others() -> None:
    engine = tiny.verifier(tiny.model(), prefill_chunk=16)
    engine.handle("long", _open(1, prompt=tuple([5] * 100), max_length=110))
    engine.handle("long", Verify(session=1, base=100))
    engine.handle("short", _open(2))
    engine.handle("short", Verify(session=2, base=3))
    answered = [[key for key, _ in engine.step()] for _ in range(8)]
    assert answered == [["short"], [], [], [], [], [], ["long"], []]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (_open(1, max_length=257), "max_length"),
        (_open(1, prompt=tuple([5] * 33)), "committed"),
        (_open(1, prompt=(61,)), "committed"),
        (Verify(session=1, base=3), "session"),
        (Propose(session=1, base=3, committed=(), count=1), "session"),
    ],
)
def test_what_cannot_be_served_is_a_failure_that_names_the_field(request_: Open | Verify, field: str) -> None:
    engine = tiny.verifier(tiny.model())
    engine.handle(1, request_)
    [(_, reply)] = engine.step()
    assert isinstance(reply, Failure) and reply.message.startswith(field)
    assert engine.num_sessions == 0


@pytest.mark.parametrize("base", [2, 4])
def test_a_verification_of_another_base_is_refused(base: int) -> None:
    engine = tiny.verifier(tiny.model())
    engine.handle(1, _open(1))
    engine.handle(1, Verify(session=1, base=base))
    assert any(isinstance(reply, Failure) and "base" in reply.message for _, reply in engine.step())


def test_a_drafter_follows_without_drafting_when_asked_for_nothing() -> None:
    engine = tiny.drafter(tiny.model())
    engine.handle(1, _open(1))
    engine.handle(1, Propose(session=1, base=3, committed=(7, 8), count=0))
    assert engine.step() == [(1, Draft(session=1, base=5, tokens=()))]
    while engine.busy:
        assert engine.step() == []
    engine.handle(1, Propose(session=1, base=5, committed=(9,), count=2))
    drafts = [reply.tokens for _ in range(3) for _, reply in engine.step()]
    fresh = tiny.drafter(tiny.model())
    fresh.handle(1, _open(1, prompt=(3, 4, 5, 7, 8, 9)))
    fresh.handle(1, Propose(session=1, base=6, committed=(), count=2))
    assert drafts == [reply.tokens for _ in range(3) for _, reply in fresh.step()] and len(drafts) == 1


def test_a_prompt_that_does_not_fit_ends_in_process_decoding_with_the_reason() -> None:
    [fits] = tiny.requests(1, temperature=0.0)
    [too_long] = tiny.requests(1, temperature=0.0, max_tokens=300)
    engine = tiny.verifier(tiny.model())
    with pytest.raises(DecodingError, match="max_length"):
        Decoder(engine).generate([fits, too_long])
    assert engine.num_sessions == 0
    engine.check_integrity()


def test_verdicts_are_about_the_request_that_asked() -> None:
    engine = tiny.verifier(tiny.model())
    engine.handle("k", _open(9))
    engine.handle("k", Verify(session=9, base=3, draft=(1, 1)))
    [(key, reply)] = engine.step()
    assert key == "k" and isinstance(reply, Verdict) and (reply.session, reply.base) == (9, 3)


def test_a_drafter_scores_tokens_as_it_would_have_drafted_them() -> None:
    model = tiny.model()
    [request] = tiny.requests(1, temperature=1.0)
    written = reference.generate_plain(reference.logits_of(tiny.model()), request)
    engine = tiny.drafter(model)
    engine.handle(1, TokenLog(request).open(1, ""))
    base = len(request.prompt)
    for committed, agreed in ((written, len(written)), ((written[0], (written[1] + 1) % tiny.VOCABULARY), 1)):
        engine.handle(1, Score(session=1, base=base, committed=committed))
        [(_, reply)] = engine.step()
        assert isinstance(reply, Scored) and (reply.base, reply.agreed) == (base, agreed)
        assert reply.cost.seconds > 0 and reply.cost.tokens >= len(committed)
