"""Log-probabilities of a prompt's tokens: those of one plain forward pass, however the prompt is cut and shared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from functools import cache

import msgspec
import pytest
import tiny
from remote import freed, replica
from test_session import drafting_engine, speculation, streams
from torch import Tensor

from common import rounds
from common.engine import reference
from common.engine.batch import Feed
from common.engine.decoding import Decoder
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.session import Key, Session
from common.engine.verification import Verification
from common.messages import Failure, Open, Prefill, Prefilled, Propose, Question, Verdict, Verify
from common.types import GenerationRequest, SamplingParams, TokenIds, TokenLogprob
from serve.errors import SessionRefused
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant

BEGINNING = tuple(range(3, 53))
"""Of some prompts: three blocks that they would share."""


def asking(prompt: TokenIds, max_tokens: int = 10, logprobs: int = 3, seed: int = 0) -> GenerationRequest:
    sampling = SamplingParams(seed=seed, logprobs=logprobs, presence_penalty=1.0, logit_bias=((5, 4.0),))
    return GenerationRequest(
        prompt=prompt, max_tokens=max_tokens, sampling=sampling, language="de", prompt_logprobs=True
    )


REQUESTS = [
    asking((*BEGINNING, 7, 8)),
    asking((*BEGINNING, 7, 8), logprobs=0, seed=1),
    asking((*BEGINNING, 9), max_tokens=0),
    asking((4,), seed=2),
    msgspec.structs.replace(asking((*BEGINNING, 7, 8, 9)), prompt_logprobs=False),
    asking(tuple(range(60, 5, -1)), seed=3),
]


@cache
def expected(request: GenerationRequest) -> tuple[TokenLogprob, ...]:
    if not request.prompt_logprobs:
        return ()
    # To the plain model the prompt's second token is the first that follows something.
    first = msgspec.structs.replace(request, prompt=request.prompt[:1])
    return reference.logprobs(reference.logits_of(tiny.model()), first, request.prompt[1:])


@cache
def text(request: GenerationRequest) -> TokenIds:
    plain = msgspec.structs.replace(request, prompt_logprobs=False)
    return reference.generate_plain(reference.logits_of(tiny.model()), plain)


def assert_equal(reported: Sequence[TokenLogprob], request: GenerationRequest) -> None:
    wanted = expected(request)
    assert [entry.token for entry in reported] == [entry.token for entry in wanted]
    assert [entry.logprob for entry in reported] == pytest.approx([w.logprob for w in wanted], rel=0, abs=1e-9)
    for entry, right in zip(reported, wanted, strict=True):
        assert [token for token, _ in entry.top] == [token for token, _ in right.top]
        values = [value for _, value in right.top]
        assert [value for _, value in entry.top] == pytest.approx(values, rel=0, abs=1e-9)


class _Recording(Verification):
    """Keeps what is reported of prompts."""

    def __init__(self) -> None:
        self.reported: defaultdict[Key, list[TokenLogprob]] = defaultdict(list)

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict | Prefilled]:
        answers = super().advance(sessions, logits)
        for session, answer in zip(sessions, answers, strict=True):
            self.reported[session.key] += answer.logprobs if isinstance(answer, Prefilled) else ()
        return answers


class _Counting(ModelRunner):
    """Keeps the most rows of logits that a step had."""

    most = 0

    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        self.most = max(self.most, sum(feed.wanted for feed in feeds))
        return super().forward(feeds)


@pytest.mark.parametrize("draft_length", [0, 3])
@pytest.mark.parametrize("kv_tokens", [4096, 96])
@pytest.mark.parametrize(("chunk", "window"), [(512, 512), (7, 512), (512, 11), (20, 13), (1, 1)])
def test_they_equal_a_plain_forward_pass(
    chunk: int, window: int, kv_tokens: int, draft_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PREFILL_WINDOW", window)
    role, runner = _Recording(), _Counting(tiny.model(), kv_tokens=kv_tokens)
    target = Engine(runner, role, prefill_chunk=chunk)
    drafter = tiny.drafter(tiny.perturbed(tiny.model(), 0.05)) if draft_length else None
    concurrency = 3
    decoder = Decoder(target, drafter, draft_length=draft_length, concurrency=concurrency)
    for number, (generation, request) in enumerate(zip(decoder.generate(REQUESTS), REQUESTS, strict=True)):
        assert generation.output == text(request)
        assert_equal(role.reported[number], request)
    # The whole prompt's logits are never there at once, but a chunk's and one or a draft of each text.
    assert runner.most <= max(chunk, concurrency) + concurrency * (1 + draft_length)
    target.check_integrity()


def test_a_known_prompt_is_run_again_and_then_shared() -> None:
    engine = tiny.verifier(tiny.model())
    decoder, request = Decoder(engine), REQUESTS[0]
    plain = msgspec.structs.replace(request, prompt_logprobs=False)
    decoder.generate([plain])
    decoder.generate([request])
    assert engine.memory.prefix_hit_tokens == 0
    decoder.generate([plain])
    assert engine.memory.prefix_hit_tokens == 48
    engine.check_integrity()


def opened(engine: Engine, **changes: object) -> None:
    request = Open(
        session=1, token="", committed=(5,), prompt_length=3, max_length=6, sampling=SamplingParams(logprobs=1)
    )
    engine.handle(1, msgspec.structs.replace(request, **changes))


@pytest.mark.parametrize(
    ("question", "changes", "message"),
    [
        (Prefill(session=1, base=1, committed=(6,)), {"sampling": SamplingParams()}, "logprobs"),
        (Prefill(session=1, base=1, committed=()), {}, "committed"),
        (Prefill(session=1, base=1, committed=(6,) * 6), {}, "committed"),
        (Prefill(session=1, base=1, committed=(tiny.VOCABULARY,)), {}, "committed"),
        (Prefill(session=1, base=1, committed=(-1,)), {}, "committed"),
        (Prefill(session=1, base=2, committed=(6,)), {}, "base"),
        (Verify(session=1, base=1), {}, "base: 1, but the prompt has 3 tokens"),
        (Verify(session=1, base=1), {"prompt_length": 7}, "session: not open"),
        (Propose(session=1, base=1, committed=(6,), count=1), {}, "Propose: a verifier takes"),
    ],
)
def test_what_makes_no_sense_is_refused(question: Question, changes: dict[str, object], message: str) -> None:
    engine = tiny.verifier(tiny.model())
    opened(engine, **changes)
    engine.handle(1, question)
    failure = engine.step()[-1][1]
    assert isinstance(failure, Failure) and failure.message.startswith(message)
    assert engine.num_sessions == 0


def test_a_drafter_is_not_asked_about_prompts() -> None:
    engine = tiny.drafter(tiny.model())
    opened(engine)
    engine.handle(1, Prefill(session=1, base=1, committed=(6,)))
    ((_, failure),) = engine.step()
    assert isinstance(failure, Failure) and "a drafter takes" in failure.message


async def write(
    request: GenerationRequest, *sources: LeaseSource, drafter: LeaseSource | None = None
) -> tuple[list[TokenLogprob], TokenIds, int]:
    """What is told of the prompt, the output, and how many verifiers were lost."""
    reported: list[TokenLogprob] = []
    tokens: list[int] = []
    left = iter(sources)
    async with streams() as pool:
        verifier = RemoteVerifier(lambda: next(left)(), pool, backoff_s=0)
        drafting = speculation(pool, {"de": drafter} if drafter is not None else {}, request)
        async for progress in generate(request, verifier, drafting):
            assert not (progress.tokens and progress.prompt_logprobs)
            reported += progress.prompt_logprobs
            tokens += progress.tokens
    return reported, tuple(tokens), verifier.losses


@pytest.mark.parametrize("request_", REQUESTS)
async def test_they_come_over_the_wire_before_the_text(request_: GenerationRequest) -> None:
    async with (
        replica(tiny.verifier(tiny.model(), prefill_chunk=20)) as verifier,
        replica(drafting_engine()) as drafter,
    ):
        reported, output, _ = await write(request_, verifier.lease, drafter=drafter.lease)
        assert output == text(request_)
        assert_equal(reported, request_)
        await freed(verifier, drafter)


class _Dying(Verification):
    """Dies in the third part of a prompt."""

    parts = 0

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict | Prefilled]:
        self.parts += 1
        if self.parts == 3:
            raise MemoryError("out of memory, says the test")
        return super().advance(sessions, logits)


async def test_a_verifier_that_dies_amid_a_prompt_is_replaced_and_nothing_is_told_twice() -> None:
    dying = Engine(ModelRunner(tiny.model(), kv_tokens=1024), _Dying(), prefill_chunk=20)
    async with replica(dying) as first, replica() as second:
        reported, output, losses = await write(REQUESTS[0], first.lease, second.lease)
    assert losses == 1
    assert output == text(REQUESTS[0])
    assert_equal(reported, REQUESTS[0])


async def test_a_prompt_that_no_verifier_takes_is_told_to_the_client() -> None:
    async def granted() -> AsyncGenerator[LeaseGrant]:
        async for grant in small.lease():
            yield grant

    async with replica(tiny.verifier(tiny.model(), kv_tokens=32)) as small:
        with pytest.raises(SessionRefused, match="max_length"):
            await write(REQUESTS[0], granted)


def test_a_request_says_what_to_report_of_a_prompt() -> None:
    with pytest.raises(ValueError, match="prompt_logprobs needs"):
        msgspec.structs.replace(REQUESTS[0], sampling=SamplingParams())
    with pytest.raises(ValueError, match="max_tokens"):
        msgspec.structs.replace(REQUESTS[0], max_tokens=-1)
