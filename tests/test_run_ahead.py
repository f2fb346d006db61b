"""Running ahead: what is drafted before it is asked for is what would have been drafted, and costs nobody anything."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from common.engine import reference
from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.messages import Close, Draft, Failure, Open, Propose, Score, Scored, Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, StepCost, TokenIds

_TARGET = tiny.model()
_DRAFTER = tiny.perturbed(_TARGET, 0.05)
_REFERENCE = reference.logits_of(tiny.model())
_DRAFTER_REFERENCE = reference.logits_of(tiny.perturbed(tiny.model(), 0.05))
_PROMPT = tuple(range(3, 24))


def _engine(run_ahead: int = 64, kv_tokens: int = 2048) -> Engine:
    return Engine(ModelRunner(_DRAFTER, kv_tokens=kv_tokens), Drafting(run_ahead))


def _open(session: int = 1, prompt: TokenIds = _PROMPT, max_length: int = 120, temperature: float = 1.0) -> Open:
    sampling = SamplingParams(temperature=temperature, seed=session)
    return Open(
        session=session,
        token="",
        committed=prompt,
        prompt_length=len(prompt),
        max_length=max_length,
        sampling=sampling,
    )


def _answer(engine: Engine, question: Propose) -> Draft:
    engine.handle(question.session, question)
    while True:
        for _, reply in engine.step():
            assert isinstance(reply, Draft), reply
            return reply


def _rest(engine: Engine) -> int:
    """Let it run ahead until it sleeps; returns the steps that took."""
    steps = 0
    while engine.busy:
        assert engine.step() == []
        steps += 1
    engine.check_integrity()
    return steps


def _fresh(committed: TokenIds, count: int, temperature: float = 1.0) -> TokenIds:
    """What is drafted without running ahead."""
    engine = _engine(0)
    engine.handle(1, _open(temperature=temperature))
    news = committed[len(_PROMPT) :]
    return _answer(engine, Propose(session=1, base=len(_PROMPT), committed=news, count=count, ahead=count)).tokens


def _begun(ahead: int = 5, temperature: float = 1.0) -> tuple[Engine, TokenIds]:
    """An engine that has drafted 4 tokens, and run ahead for as long as it wants."""
    engine = _engine()
    engine.handle(1, _open(temperature=temperature))
    draft = _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=ahead))
    assert draft.ahead == 0
    _rest(engine)
    return engine, draft.tokens


def _runner_up(committed: TokenIds, temperature: float) -> int:
    """What the drafter draws second after `committed`: what it draws when its first choice is forbidden."""
    first = _fresh(committed, 1, temperature)[0]
    engine = _engine(0)
    opened = _open(temperature=temperature)
    forbidding = SamplingParams(temperature=temperature, seed=1, logit_bias=((first, -100.0),))
    engine.handle(1, Open(**{f: getattr(opened, f) for f in opened.__struct_fields__} | {"sampling": forbidding}))
    news = committed[len(_PROMPT) :]
    return _answer(engine, Propose(session=1, base=len(_PROMPT), committed=news, count=1)).tokens[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("accepted", range(5))
@pytest.mark.parametrize("expected", [True, False])
def test_whatever_is_accepted_and_whichever_of_two_tokens_follows_the_draft_is_at_hand(
    accepted: int, expected: bool, temperature: float
) -> None:
    engine, draft = _begun(temperature=temperature)
    committed = (*_PROMPT, *draft[:accepted])
    own = _fresh(committed, 1, temperature)[0]
    if expected and accepted < len(draft):
        own = _runner_up(committed, temperature)  # the drafter's own was refused
    elif not expected:
        own = _runner_up(committed, temperature) if accepted == len(draft) else (own + 1) % tiny.VOCABULARY
    hit = expected or accepted == len(draft) or own == _runner_up(committed, temperature)
    steps = []
    engine.handle(1, Propose(session=1, base=len(_PROMPT), committed=(*draft[:accepted], own), count=3, ahead=5))
    while not steps or not steps[-1]:
        steps.append(engine.step())
    [(_, reply)] = steps[-1]
    assert isinstance(reply, Draft)
    assert (reply.ahead, len(reply.tokens), len(steps)) == ((5, 5, 1) if hit else (0, 3, 3))
    assert reply.tokens == _fresh((*committed, own), len(reply.tokens), temperature)
    assert (reply.cost.tokens == 0) is hit
    _rest(engine)


def test_who_follows_without_asking_for_a_draft_finds_one_at_hand() -> None:
    """And the prompt is run once, before what is drafted on top of it."""
    steps: list[StepCost] = []
    engine = Engine(ModelRunner(_DRAFTER, kv_tokens=2048), Drafting(64), on_step=steps.append)
    engine.handle(1, _open())
    assert _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=0, ahead=4)).tokens == ()
    _rest(engine)
    assert steps[0].tokens == len(_PROMPT) - 1
    token = _fresh(_PROMPT, 1)
    draft = _answer(engine, Propose(session=1, base=len(_PROMPT), committed=token, count=3, ahead=3))
    assert draft.tokens == _fresh((*_PROMPT, *token), 3)
    assert draft.ahead == 3


def test_it_sleeps_when_all_that_may_be_asked_next_is_drafted() -> None:
    """The bonus, 5 tokens after it, and on after the bonus' runner-up one step later."""
    engine = _engine()
    engine.handle(1, _open())
    _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=5))
    assert _rest(engine) == 6
    assert not engine.busy


def test_nothing_is_drafted_ahead_for_those_who_did_not_ask_or_where_it_is_off() -> None:
    for run_ahead, ahead in ((64, 0), (0, 5)):
        engine = _engine(run_ahead)
        engine.handle(1, _open())
        _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=ahead))
        assert not engine.busy


def test_a_text_that_went_on_in_many_rounds_without_asking_finds_what_is_left_of_its_branch() -> None:
    engine, draft = _begun()
    optimistic = _fresh((*_PROMPT, *draft), 4)
    committed = (*draft, *optimistic[:3])
    reply = _answer(engine, Propose(session=1, base=len(_PROMPT), committed=committed, count=2, ahead=5))
    assert (reply.ahead, reply.tokens) == (3, _fresh((*_PROMPT, *committed), 3))


def test_who_asks_for_more_than_is_at_hand_waits_for_the_rest_only() -> None:
    engine, draft = _begun(ahead=2)
    bonus = _fresh((*_PROMPT, *draft), 1)
    question = Propose(session=1, base=len(_PROMPT), committed=(*draft, *bonus), count=4, ahead=4)
    engine.handle(1, question)
    assert engine.step() == []
    [(_, reply)] = engine.step()
    assert isinstance(reply, Draft)
    assert (reply.ahead, reply.tokens) == (2, _fresh((*_PROMPT, *draft, *bonus), 4))


def test_who_asks_is_answered_first_and_in_the_same_steps_as_if_nobody_ran_ahead() -> None:
    engine = _engine(run_ahead=8)
    engine.handle(1, _open())
    _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=30))
    engine.handle(2, _open(2))
    engine.handle(2, Propose(session=2, base=len(_PROMPT), committed=(), count=3))
    assert [len(engine.step()) for _ in range(3)] == [0, 0, 1]
    assert engine.busy


def test_a_step_runs_no_more_ahead_than_it_may() -> None:
    tokens: list[int] = []
    engine = Engine(ModelRunner(_DRAFTER, kv_tokens=2048), Drafting(9), on_step=lambda cost: tokens.append(cost.tokens))
    engine.handle(1, _open())
    _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=5))
    before = len(tokens)
    _rest(engine)
    assert max(tokens[before:]) <= 9 < sum(tokens[before:])


def test_a_branch_that_no_step_could_begin_is_given_up() -> None:
    engine = _engine(run_ahead=3)  # a branch runs the 5 tokens after the prompt's first block, at least
    engine.handle(1, _open())
    _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=5))
    assert _rest(engine) == 6


def test_branches_end_with_their_session() -> None:
    engine, _ = _begun()
    held = engine.memory.held_blocks
    assert held > 3
    engine.handle(1, Close(session=1))
    engine.check_integrity()
    assert engine.memory.held_blocks == 0


def test_scoring_ends_what_was_drafted_ahead_and_is_not_disturbed_by_it() -> None:
    engine, draft = _begun()
    engine.handle(1, Score(session=1, base=len(_PROMPT), committed=draft))
    [(_, reply)] = engine.step()
    assert isinstance(reply, Scored) and reply.agreed == 4
    assert not engine.busy
    engine.check_integrity()
    asked = Propose(session=1, base=len(_PROMPT) + 4, committed=(), count=2, ahead=2)
    assert _answer(engine, asked).tokens == _fresh((*_PROMPT, *draft), 2)


def test_a_text_that_needs_the_memory_gets_it() -> None:
    """Nobody is preempted for what is only drafted ahead, and nobody waits for it."""
    engine = _engine(kv_tokens=10 * 16)
    engine.handle(1, _open())
    draft = _answer(engine, Propose(session=1, base=len(_PROMPT), committed=(), count=4, ahead=5))
    _rest(engine)
    free = engine.memory.free_blocks
    assert free < 4
    engine.handle(2, _open(2, prompt=(*_PROMPT[::-1], *_PROMPT, *_PROMPT)))
    engine.handle(2, Propose(session=2, base=63, committed=(), count=4))
    replies = [reply for _ in range(4) for _, reply in engine.step()]
    assert len(replies) == 1 and engine.memory.preemptions == 0 and engine.num_waiting == 0
    engine.check_integrity()
    committed = (draft.tokens[0], draft.tokens[1])
    asked = Propose(session=1, base=len(_PROMPT), committed=committed, count=3, ahead=3)
    assert _answer(engine, asked).tokens == _fresh((*_PROMPT, *committed), 3)


@pytest.mark.parametrize("field", ["count", "ahead"])
@pytest.mark.parametrize("value", [-1, 100])
def test_a_question_out_of_range_is_refused_by_name(field: str, value: int) -> None:
    engine = _engine()
    engine.handle(1, _open())
    engine.handle(1, Propose(**{"session": 1, "base": len(_PROMPT), "committed": (), "count": 1, field: value}))
    [(_, reply)] = engine.step()
    assert isinstance(reply, Failure) and field in reply.message
    engine.check_integrity()


@dataclass
class _Text:
    log: TokenLog
    known: int = 0
    draft: TokenIds | None = None
    ahead: list[int] = field(default_factory=list)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    blocks=st.integers(6, 20),
    run_ahead=st.sampled_from([0, 4, 24, 200]),
    temperature=st.sampled_from([0.0, 0.7]),
)
def test_no_text_changes_whatever_is_drafted_ahead(
    data: st.DataObject, blocks: int, run_ahead: int, temperature: float
) -> None:
    """Several texts in any interleaving, with any lengths, with memory for a part of them; some end midway."""
    target, drafter = tiny.verifier(_TARGET), _engine(run_ahead, kv_tokens=16 * blocks)
    texts = [
        _Text(
            TokenLog(
                GenerationRequest(
                    prompt=prompt, max_tokens=20, sampling=SamplingParams(temperature=temperature, seed=n)
                )
            )
        )
        for n, prompt in enumerate(
            data.draw(st.lists(st.lists(st.integers(3, 4), min_size=1, max_size=40).map(tuple), min_size=1, max_size=4))
        )
    ]
    for number, text in enumerate(texts):
        for engine in (target, drafter):
            engine.handle(number, text.log.open(number, ""))
        text.known = len(text.log.tokens)
    open_texts = set(range(len(texts)))
    for number, text in enumerate(texts):
        _ask(drafter, number, text, data)
    while open_texts:
        for number, reply in drafter.step():
            assert isinstance(reply, Draft), reply
            if number in open_texts:
                assert reply.tokens == _drafted_alone(texts[number].log, len(reply.tokens))
                texts[number].draft = reply.tokens
        number = data.draw(st.sampled_from(sorted(open_texts)))
        text = texts[number]
        if text.draft is None:
            continue
        target.handle(number, text.log.verify(number, text.draft))
        [(_, verdict)] = target.step()
        assert isinstance(verdict, Verdict)
        text.log.commit(text.draft, verdict)
        text.draft = None
        if text.log.finish_reason is not None or data.draw(st.integers(0, 15)) == 0:
            open_texts.remove(number)
            drafter.handle(number, Close(session=number))
        else:
            _ask(drafter, number, text, data)
        drafter.check_integrity()
    for text in texts:
        plain = reference.generate_plain(_REFERENCE, text.log.request)
        assert text.log.output == plain[: len(text.log.output)]
    assert drafter.memory.held_blocks == drafter.num_sessions == 0
    assert not drafter.busy


def _drafted_alone(log: TokenLog, count: int) -> TokenIds:
    asked = GenerationRequest(prompt=log.tokens, max_tokens=count, sampling=log.request.sampling)
    return reference.generate_plain(_DRAFTER_REFERENCE, asked) if count else ()


def _ask(drafter: Engine, number: int, text: _Text, data: st.DataObject) -> None:
    count, ahead = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 8))
    drafter.handle(number, text.log.propose(number, text.known, count, ahead))
    text.known = len(text.log.tokens)
