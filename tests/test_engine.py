"""The engine: batches that change nothing, prompts in chunks, memory that is shared and that may run out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.engine import reference
from common.engine.batch import Feed, Span, pack
from common.engine.cache import BlockPool
from common.engine.decoding import Decoder, DecodingError
from common.engine.drafting import Drafting
from common.engine.engine import Engine, _share
from common.engine.runner import ModelRunner
from common.engine.sequence import CachedSequence
from common.engine.session import Session
from common.engine.verification import Verification
from common.messages import Close, Draft, Failure, Open, Propose, Score, Scored, Verdict, Verify
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, StepCost

_MODELS = {shape: tiny.model(shape) for shape in ("llama", "gemma2")}
_REFERENCES = {shape: reference.logits_of(tiny.model(shape)) for shape in _MODELS}
_DRAFTING = tiny.perturbed(tiny.model(), 0.05)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from(sorted(_MODELS)),
    texts=st.lists(st.lists(st.integers(3, 60), min_size=2, max_size=40), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 39), min_size=5, max_size=5),
)
def test_packed_logits_equal_the_plain_model(shape: str, texts: list[list[int]], cuts: list[int]) -> None:
    """Whatever is cached, however long the others are, wherever the prompt is cut, and after a rollback."""
    runner = ModelRunner(_MODELS[shape], kv_tokens=1024)
    sequences = [runner.begin() for _ in texts]
    assert all(s.grow(len(text)) for s, text in zip(sequences, texts, strict=True))
    halves = [min(cut, len(text) - 1) for text, cut in zip(texts, cuts, strict=False)]
    runner.forward([Feed(s, t[:h], 0) for s, t, h in zip(sequences, texts, halves, strict=True)])
    for _ in range(2):
        logits = runner.forward([Feed(s, t[h:], len(t) - h) for s, t, h in zip(sequences, texts, halves, strict=True)])
        for text, half, rows in zip(texts, halves, logits, strict=True):
            expected = _REFERENCES[shape](tuple(text))[half:]
            torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
        for sequence, text, half in zip(sequences, texts, halves, strict=True):
            sequence.rollback(half)
            assert sequence.grow(len(text) - half)


def test_a_compiled_model_computes_the_same() -> None:
    """Prompts, single tokens and several texts a step; Gemma 2 has windows and capped scores."""
    runner = ModelRunner(tiny.model("gemma2"), kv_tokens=256, compiled=True)
    texts = [list(range(3, 23)), list(range(30, 42))]
    sequences = [runner.begin() for _ in texts]
    assert all(sequence.grow(len(text)) for sequence, text in zip(sequences, texts, strict=True))
    for start, stop in ((0, 8), (8, 9), (9, 12)):
        feeds = [Feed(s, t[start:stop], stop - start) for s, t in zip(sequences, texts, strict=True)]
        logits = [runner.forward([feeds[0]])[0], runner.forward([feeds[1]])[0]] if start == 8 else runner.forward(feeds)
        for text, rows in zip(texts, logits, strict=True):
            torch.testing.assert_close(rows, _REFERENCES["gemma2"](tuple(text[:stop]))[start:], rtol=1e-6, atol=1e-6)


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
        engine.handle(session, _open(session, prompt=tuple([session + 3] * 20)))
        engine.handle(session, Verify(session=session, base=20))
    assert sorted(key for key, _ in engine.step()) == [0]
    assert not engine.busy
    engine.handle(0, Close(session=0))
    assert engine.busy
    assert [key for key, _ in engine.step()] == [1]
    for session in range(3):
        engine.handle(session, Close(session=session))
        engine.handle(session, Close(session=session))
    engine.check_integrity()
    assert engine.num_sessions == engine.memory.held_blocks == 0


def test_a_session_that_does_not_fit_is_tried_again_only_when_it_might(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the engine is asked what to do next, it would walk through the prompt in vain."""
    engine, tries = tiny.verifier(_MODELS["llama"], kv_tokens=96), 0
    begin = ModelRunner.begin

    def counted(runner: ModelRunner) -> CachedSequence:
        nonlocal tries
        tries += 1
        return begin(runner)

    _ask(engine, 0, tuple(range(3, 43)), max_length=60)
    _ask(engine, 1, tuple(range(50, 10, -1)), max_length=60)
    monkeypatch.setattr(ModelRunner, "begin", counted)
    for length in (40, 41, 42):
        engine.handle(0, Verify(session=0, base=length))
        assert engine.busy and [key for key, _ in engine.step()] == [0] and not engine.busy
    assert tries == 2
    engine.handle(0, Close(session=0))
    assert engine.busy and [key for key, _ in engine.step()] == [1]
    assert tries == 3


def test_a_session_fits_once_another_has_run_what_they_share() -> None:
    engine = tiny.verifier(_MODELS["llama"], kv_tokens=96)
    _ask(engine, 0, (*_SYSTEM, 7), max_length=60)
    _ask(engine, 1, (*_SYSTEM, 8), max_length=60)
    assert [[key for key, _ in engine.step()] for _ in range(2)] == [[0], [1]]


def test_a_long_prompt_does_not_hold_up_others() -> None:
    engine = tiny.verifier(tiny.model(), prefill_chunk=16)
    engine.handle("long", _open(1, prompt=tuple([5] * 100), max_length=110))
    engine.handle("long", Verify(session=1, base=100))
    engine.handle("short", _open(2))
    engine.handle("short", Verify(session=2, base=3))
    answered = [[key for key, _ in engine.step()] for _ in range(8)]
    assert answered == [["short"], [], [], [], [], [], ["long"], []]


@pytest.mark.parametrize(
    ("behind", "share"),
    [([], 512), ([0, 0], 512), ([1024], 512), ([512, 512], 256), ([1] * 15 + [1024], 497), ([1000] * 600, 1)],
)
def test_what_some_prompts_do_not_need_the_others_have(behind: list[int], share: int) -> None:
    assert _share(behind, 512) == share


@given(behind=st.lists(st.integers(0, 600), min_size=1, max_size=40), room=st.integers(40, 512))
def test_shares_fill_the_room_and_no_more(behind: list[int], room: int) -> None:
    share = _share(behind, room)
    run = [min(tokens, share) for tokens in behind]
    assert sum(run) <= room
    assert run == behind or sum(run) > room - len(behind), "but for what cannot be divided"


def test_a_prompt_of_which_others_wait_for_the_beginning_has_all_of_the_step() -> None:
    engine = tiny.verifier(tiny.model(), prefill_chunk=64)
    for key in range(8):
        _ask(engine, key, tuple([5] * 200), max_length=210)
    steps = 0
    while engine.num_sessions and steps < 100 and not any(engine.step()):
        steps += 1
    assert steps == 3, "as many as it would take alone"


def test_the_cost_of_an_answer_is_of_all_chunks_of_its_prompt() -> None:
    costs: list[StepCost] = []
    runner = ModelRunner(tiny.model(), kv_tokens=512)
    engine = Engine(runner, Verification(), prefill_chunk=16, on_step=costs.append)
    _ask(engine, 1, tuple(range(3, 53)), max_length=60)
    replies = [reply for _ in range(4) for _, reply in engine.step()]
    assert len(replies) == 1 and isinstance(replies[0], Verdict)
    assert replies[0].cost == sum(costs, StepCost()) and replies[0].cost.tokens == 50


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (_open(1, max_length=257), "max_length"),
        (_open(1, prompt=tuple([5] * 33)), "committed"),
        (_open(1, prompt=(61,)), "committed"),
        (msgspec.structs.replace(_open(1), sampling=SamplingParams(logit_bias=((61, 1.0),))), "logit_bias"),
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


def test_a_verification_beyond_the_committed_tokens_is_refused() -> None:
    engine = tiny.verifier(tiny.model())
    engine.handle(1, _open(1))
    engine.handle(1, Verify(session=1, base=4))
    assert any(isinstance(reply, Failure) and "base" in reply.message for _, reply in engine.step())


def test_a_stale_or_repeated_verification_is_ignored() -> None:
    engine = tiny.verifier(tiny.model())
    engine.handle(1, _open(1))
    for base in (2, 3, 3):
        engine.handle(1, Verify(session=1, base=base))
    assert [reply.base for _, reply in engine.step()] == [3]
    engine.handle(1, Verify(session=1, base=3))
    assert engine.step() == []


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


def test_a_session_that_is_closed_is_answered_nothing_more() -> None:
    """Also where the answer was ready, as one to a question for nothing is."""
    engine = tiny.drafter(tiny.model())
    for session in (1, 2):
        engine.handle(session, _open(session))
    while engine.busy:
        engine.step()
    for session in (1, 2):
        engine.handle(session, Propose(session=session, base=3, committed=(), count=0))
    engine.handle(1, Close(session=1))
    assert [key for key, _ in engine.step()] == [2]


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


class _BadDrafter(Drafting):
    """Drafts what the model thinks least likely."""

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Draft | Scored | None]:
        return super().advance(sessions, [-rows for rows in logits])


class _Watched(Verification):
    """Keeps the logits it has seen, by session."""

    def __init__(self) -> None:
        self.logits: dict[object, Tensor] = {}

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict]:
        self.logits.update({s.key: rows for s, rows in zip(sessions, logits, strict=True)})
        return super().advance(sessions, logits)


def _ask(engine: Engine, key: int, prompt: tuple[int, ...], draft: tuple[int, ...] = (), max_length: int = 100) -> None:
    engine.handle(key, _open(key, prompt=prompt, max_length=max_length))
    engine.handle(key, Verify(session=key, base=len(prompt), draft=draft))


def _tokens_run(engine: Engine) -> int:
    """Until every answer is there, in steps that each answer someone."""
    total = 0
    while engine.busy:
        replies = [reply for _, reply in engine.step()]
        total += max(reply.cost.tokens for reply in replies if isinstance(reply, Verdict))
    return total


_SYSTEM = tuple(3 + i * i % 50 for i in range(40))


@pytest.mark.parametrize("shape", sorted(_MODELS))
@pytest.mark.parametrize("closed", [False, True])
def test_a_shared_beginning_is_run_once_and_changes_no_logits(shape: str, closed: bool) -> None:
    role = _Watched()
    engine = Engine(ModelRunner(_MODELS[shape], kv_tokens=1024), role)
    _ask(engine, 1, (*_SYSTEM, 7, 8))
    assert _tokens_run(engine) == 42
    if closed:
        engine.handle(1, Close(session=1))
    _ask(engine, 2, (*_SYSTEM, 9), draft=(5, 6))
    assert _tokens_run(engine) == 41 - 32 + 2, "all but the two whole blocks"
    assert engine.memory.prefix_hit_tokens == 32
    expected = _REFERENCES[shape]((*_SYSTEM, 9, 5, 6))[-3:]
    torch.testing.assert_close(role.logits[2], expected, rtol=1e-5, atol=1e-5)


def test_a_beginning_shared_by_sessions_opened_together_is_run_once() -> None:
    role = _Watched()
    engine = Engine(ModelRunner(_MODELS["llama"], kv_tokens=1024), role)
    for key in range(4):
        _ask(engine, key, (*_SYSTEM, 10 + key))
    assert [[key for key, _ in engine.step()] for _ in range(2)] == [[0], [1, 2, 3]]
    assert engine.memory.prefix_hit_tokens == 3 * 32
    assert engine.memory.held_blocks == 2 + 4
    for key, rows in role.logits.items():
        expected = _REFERENCES["llama"]((*_SYSTEM, 10 + key))[-1:]
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("closed", [False, True])
def test_without_prefix_caching_every_prompt_is_run_and_nothing_is_put_off(closed: bool) -> None:
    engine = Engine(ModelRunner(_MODELS["llama"], kv_tokens=1024), Verification(), prefix_caching=False)
    _ask(engine, 1, (*_SYSTEM, 7))
    if closed:
        engine.step()
        engine.handle(1, Close(session=1))
    _ask(engine, 2, (*_SYSTEM, 8))
    answered = engine.step()
    assert {key for key, _ in answered} == ({2} if closed else {1, 2})
    assert sum(reply.cost.tokens for _, reply in answered[:1] if isinstance(reply, Verdict)) == (41 if closed else 82)
    assert engine.memory.prefix_hit_tokens == 0
    engine.check_integrity()


def test_a_text_is_reused_by_its_replay_and_by_what_goes_on_from_it() -> None:
    engine = tiny.verifier(_MODELS["llama"])
    [request] = tiny.requests(1, temperature=0.0, max_tokens=60)
    log = TokenLog(request)
    engine.handle(1, log.open(1, ""))
    while log.finish_reason is None:
        engine.handle(1, log.verify(1, (5, 5)))
        [(_, reply)] = engine.step()
        log.commit((5, 5), reply)
    engine.handle(1, Close(session=1))
    _ask(engine, 2, (*log.tokens, 9))
    engine.step()
    verified = len(log.tokens) - 3  # of the last round it is not known here what was committed
    assert engine.memory.prefix_hit_tokens >= verified // 16 * 16 > len(request.prompt)


def test_what_was_only_drafted_is_not_shared() -> None:
    engine = tiny.drafter(_MODELS["llama"])
    engine.handle(1, _open(1, prompt=_SYSTEM, max_length=100))
    engine.handle(1, Propose(session=1, base=40, committed=(), count=30))
    drafts = [reply.tokens for _ in range(30) for _, reply in engine.step()]
    engine.handle(2, _open(2, prompt=(*_SYSTEM, *drafts[0]), max_length=100))
    engine.step()
    assert engine.memory.prefix_hit_tokens == 32


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("draft_length", [0, 4])
def test_with_memory_for_a_fraction_all_finish_and_no_text_changes(temperature: float, draft_length: int) -> None:
    requests = tiny.requests(8, temperature=temperature, max_tokens=40)
    target = tiny.verifier(_MODELS["llama"], kv_tokens=96)
    drafting = tiny.drafter(tiny.perturbed(_MODELS["llama"], 0.05), kv_tokens=96) if draft_length else None
    generations = Decoder(target, drafting, draft_length=draft_length, concurrency=8).generate(requests)
    plain = [reference.generate_plain(_REFERENCES["llama"], request) for request in requests]
    assert [g.output for g in generations] == plain
    for engine in (target, *([drafting] if drafting else [])):
        assert engine.memory.preemptions > 0
        assert engine.memory.held_blocks == engine.num_sessions == 0
        engine.check_integrity()


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(3, 4), min_size=1, max_size=50), min_size=1, max_size=6),
    shared=st.integers(0, 40),
    blocks=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    draft_length=st.integers(0, 6),
    prefill_chunk=st.sampled_from([3, 20, 512]),
)
def test_sharing_and_preempting_change_no_text(
    prompts: list[list[int]], shared: int, blocks: tuple[int, int], draft_length: int, prefill_chunk: int
) -> None:
    requests = [
        GenerationRequest(
            prompt=(*_SYSTEM[:shared], *prompt), max_tokens=18, sampling=SamplingParams(seed=seed, top_k=20)
        )
        for seed, prompt in enumerate(prompts)
    ]
    target = tiny.verifier(_MODELS["llama"], kv_tokens=16 * blocks[0], prefill_chunk=prefill_chunk)
    drafting = Engine(ModelRunner(_DRAFTING, kv_tokens=16 * blocks[1]), _BadDrafter(), prefill_chunk=prefill_chunk)
    decoder = Decoder(target, drafting, draft_length=draft_length, concurrency=6)
    for request, generation in zip(requests, decoder.generate(requests), strict=True):
        assert generation.output == reference.generate_plain(_REFERENCES["llama"], request)
    for engine in (target, drafting):
        engine.check_integrity()
        assert engine.memory.held_blocks == engine.num_sessions == 0


def test_the_youngest_is_preempted_and_comes_back_before_those_that_came_later() -> None:
    """Five blocks: two texts of two blocks fit, a third waits, and soon the first needs a block more."""
    engine = tiny.verifier(_MODELS["llama"], kv_tokens=80)
    lengths = dict.fromkeys(range(3), 30)
    for key in lengths:
        _ask(engine, key, tuple([10 + key] * 30), max_length=60)
    answered = []
    for _ in range(4):
        answered.append([key for key, _ in engine.step()])
        for key in answered[-1]:
            lengths[key] += 1
            engine.handle(key, Verify(session=key, base=lengths[key]))
        engine.check_integrity()
    assert answered == [[0, 1], [0, 1], [0, 1], [0]]
    assert engine.memory.preemptions == 1
    for closed, served in ((0, [1]), (1, [2])):
        engine.handle(closed, Close(session=closed))
        assert [key for key, _ in engine.step()] == served


def _spans(pool: BlockPool, lengths: Sequence[tuple[int, int]]) -> list[Span]:
    """Of sequences with that many tokens cached and to be run."""
    spans = []
    for cached, width in lengths:
        sequence = CachedSequence(pool)
        assert sequence.grow(cached + width)
        sequence.cached += [0] * cached
        spans.append(Feed(sequence, [0] * width, 1).span())
    return spans


@given(
    lengths=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=8),
    max_blocks=st.integers(7, 20),
)
def test_no_group_gathers_more_blocks_than_allowed_and_every_token_is_in_one(
    lengths: list[tuple[int, int]], max_blocks: int
) -> None:
    spans = _spans(BlockPool(2048), lengths)
    batch = pack(spans, torch.device("cpu"), max_blocks=max_blocks)
    assert all(group.blocks_BK.numel() <= max_blocks for group in batch.groups)
    rows = [row for group in batch.groups for row in range(group.rows.start, group.rows.stop)]
    assert rows == list(range(sum(width for _, width in lengths)))
    ends = batch.position_ids[0, batch.logit_rows] + 1
    assert ends.tolist() == [span.end for span in spans], "logits come in the order of the spans"


def _gathered(lengths: Sequence[tuple[int, int]]) -> list[int]:
    """Blocks of each group, padding included."""
    pool = BlockPool(2**17)
    batch = pack(_spans(pool, lengths), torch.device("cpu"), max_blocks=pool.num_blocks)
    return [group.blocks_BK.numel() for group in batch.groups]


def test_one_long_text_does_not_pad_the_keys_of_all_others() -> None:
    """One of 2,001 tokens and 31 of 101: as one group they would gather twelve times the blocks that there are."""
    gathered = _gathered([(100, 1)] * 20 + [(2000, 1)] + [(100, 1)] * 11)
    assert len(gathered) == 2 and sum(gathered) < 2 * (126 + 31 * 7)
    assert len(_gathered([(100, 1)] * 32)) == 1
    assert len(_gathered([(2000, 1), (1500, 1), (1100, 1)])) == 1, "another kernel call would cost more"
    assert len(_gathered([(200, 1), (20, 1), (20, 1)])) == 1, "likewise, there being few"
