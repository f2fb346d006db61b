"""A request's rounds over real streams and real engines, in one process: and what happens when parts fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache

import msgspec
import pytest
import tiny
import uvloop
from remote import freed
from torch import Tensor

from common.engine import reference
from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.session import Key, Session
from common.messages import Alive, Draft, Hello, Open, Propose, Reply, Request, Verdict, Verify
from common.models import Fingerprint
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, SpeculationStats, TokenIds
from serve.drafting.draft_length import DraftLengthController
from serve.drafting.outlook import DraftLength
from serve.drafting.remote_drafter import RemoteDrafter
from serve.drafting.settings import SpeculationSettings
from serve.drafting.speculation import NGRAM, Speculation
from serve.errors import ReplicaLost, ServiceUnavailable, SessionRefused
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant, Replica
from serve.stream.streams import StreamPool
from serve.stream.wire import Connection, encode

FINGERPRINT = Fingerprint(tokens="", special_tokens={}, vocab_size=tiny.VOCABULARY, context_length=256)
REQUEST = msgspec.structs.replace(tiny.requests(1, temperature=1.0, max_tokens=30)[0], language="de")


@cache
def expected(request: GenerationRequest = REQUEST) -> TokenIds:
    return reference.generate_plain(reference.logits_of(tiny.model()), request)


def drafting_engine(role: Drafting | None = None) -> Engine:
    return Engine(ModelRunner(tiny.perturbed(tiny.model(), 0.05), kv_tokens=1024), role or Drafting())


@asynccontextmanager
async def replica(engine: object, name: str = "r") -> AsyncIterator[Replica]:
    made = Replica(lambda: engine, name=name, fingerprint=FINGERPRINT)  # type: ignore[arg-type, return-value]
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def streams() -> AsyncIterator[StreamPool]:
    pool = StreamPool()
    yield pool
    pool.close()


class Deployed(dict[str, LeaseSource]):
    """Drafters by name, all of them warm. Implements `speculation.Drafters`."""

    def source(self, name: str | None) -> LeaseSource | None:
        return self.get(name or "")

    @property
    def warm(self) -> tuple[str, ...]:
        return tuple(self)


def speculation(
    pool: StreamPool, drafters: dict[str, LeaseSource], request: GenerationRequest = REQUEST, draft_length: int = 3
) -> Speculation:
    lengths = DraftLengthController(SpeculationSettings(draft_length=draft_length)).text()
    return Speculation(request, Deployed(drafters), lengths, pool, load=lambda: 1, deadline_s=0.5)


async def write(
    pool: StreamPool, verifier: LeaseSource, drafter: LeaseSource | None = None, request: GenerationRequest = REQUEST
) -> tuple[TokenIds, list[str | None]]:
    """The text, and what drafted in each round."""
    tokens: list[int] = []
    drafters: list[str | None] = []
    drafting = speculation(pool, {"de": drafter} if drafter is not None else {}, request)
    async for progress in generate(request, RemoteVerifier(verifier, pool, backoff_s=0), drafting):
        tokens += progress.tokens
        drafters.append(progress.drafter)
    return tuple(tokens), drafters


async def test_text_over_the_wire_equals_the_reference() -> None:
    target, drafter = tiny.verifier(tiny.model()), drafting_engine()
    async with streams() as pool, replica(target) as verifiers, replica(drafter, "de/v1") as drafters:
        text, at_work = await write(pool, verifiers.lease, drafters.lease)
        assert text == expected()
        assert "de/v1" in at_work and len(at_work) < len(text)
        await freed(verifiers, drafters)
    target.check_integrity()
    assert target.num_sessions == drafter.num_sessions == 0


def test_text_over_the_wire_equals_the_reference_on_uvloop() -> None:
    """Ray Serve runs replicas on uvloop, whose transports differ from asyncio's."""
    uvloop.run(test_text_over_the_wire_equals_the_reference())


def test_what_follows_the_greeting_at_once_is_no_error() -> None:
    """On uvloop it may be there before whoever connects is told that it is connected."""

    async def connect_often() -> None:
        def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(encode(Hello(incarnation="x")) + encode(Alive()))

        server = await asyncio.start_server(greet, "127.0.0.1")
        host, port = server.sockets[0].getsockname()
        for _ in range(20):
            async with streams() as pool:
                await pool.channel(f"{host}:{port}", "x")
        server.close()

    uvloop.run(connect_often())


async def test_many_texts_at_once_equal_the_reference() -> None:
    requests = [msgspec.structs.replace(request, language="de") for request in tiny.requests(12, temperature=1.0)]
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model(), kv_tokens=256)) as verifiers,  # fewer than fit at once
        replica(drafting_engine()) as drafters,
    ):
        texts = await asyncio.gather(*(write(pool, verifiers.lease, drafters.lease, r) for r in requests))
    assert [text for text, _ in texts] == [expected(r) for r in requests]


async def test_without_a_drafter_the_text_is_decoded_plainly() -> None:
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        text, at_work = await write(pool, verifiers.lease)
    assert text == expected() and set(at_work) <= {None, NGRAM}


async def test_a_drafter_that_is_never_granted_is_not_waited_for() -> None:
    async def never() -> AsyncGenerator[LeaseGrant]:
        await asyncio.Event().wait()
        yield  # type: ignore[misc]

    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        text, at_work = await write(pool, verifiers.lease, never)
    assert text == expected() and set(at_work) <= {None, NGRAM}


class _Hanging:
    """An engine that takes requests and never answers."""

    busy = False

    def handle(self, key: Key, request: Request) -> None: ...
    def step(self) -> Sequence[tuple[Key, Reply]]:
        return []

    def check_integrity(self) -> None: ...


class _Dying(_Hanging):
    """An engine whose thread dies at the first proposal."""

    def handle(self, key: Key, request: Request) -> None:
        if isinstance(request, Propose | Verify):
            raise MemoryError("out of memory, says the test")


class _Lying(_Hanging):
    """Answers with drafts about another position, then with a malformed one."""

    def __init__(self) -> None:
        self._replies: list[tuple[Key, Reply]] = []

    def handle(self, key: Key, request: Request) -> None:
        if isinstance(request, Propose):
            base = request.base + len(request.committed)
            self._replies += [
                (key, Draft(session=request.session, base=base - 1, tokens=(3, 3, 3))),
                (key, Draft(session=request.session, base=base, tokens=(-1, 10**6, 5, 5, 5, 5, 5, 5))),
            ]

    @property
    def busy(self) -> bool:  # type: ignore[override]
        return bool(self._replies)

    def step(self) -> Sequence[tuple[Key, Reply]]:
        replies, self._replies = self._replies, []
        return replies


@pytest.mark.parametrize("engine", [_Hanging, _Dying, _Lying])
async def test_a_broken_drafter_costs_rounds_but_never_the_text(engine: type) -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifiers,
        replica(engine()) as drafters,
    ):
        text, _ = await write(pool, verifiers.lease, drafters.lease)
        assert text == expected()
        await freed(verifiers, drafters)


async def test_a_drafter_whose_lease_fails_of_something_unforeseen_costs_rounds_but_never_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> AsyncGenerator[LeaseGrant]:
        raise ZeroDivisionError("says the test")
        yield

    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        text, at_work = await write(pool, verifiers.lease, broken)
    assert text == expected() and set(at_work) <= {None, NGRAM}
    assert "ZeroDivisionError" in caplog.text


async def test_a_drafter_whose_memory_does_not_hold_the_text_is_asked_once() -> None:
    small = Engine(ModelRunner(tiny.perturbed(tiny.model(), 0.05), kv_tokens=32), Drafting())
    assert REQUEST.max_length > 32
    asked = 0
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers, replica(small) as drafters:

        def counted() -> AsyncGenerator[LeaseGrant]:
            nonlocal asked
            asked += 1
            return drafters.lease()  # type: ignore[return-value]

        text, _ = await write(pool, verifiers.lease, counted)
        assert text == expected() and asked == 1
        await freed(verifiers, drafters)


class _SlowPrefill(Drafting):
    """Reads the text for longer than any draft may take."""

    read = False

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list:
        if not self.read:
            time.sleep(0.3)
        self.read = True
        return super().advance(sessions, logits)


async def test_a_drafter_is_not_asked_before_it_has_read_the_text_and_so_is_not_lost() -> None:
    log = TokenLog(REQUEST)
    async with streams() as pool, replica(drafting_engine(_SlowPrefill())) as drafters:
        drafter = RemoteDrafter("de", drafters.lease, pool, deadline_s=0.1)
        drafter.start(log)
        while not drafters.num_leases:
            await asyncio.sleep(0)
        assert not drafter.ready(log) and await drafter.draft(log, DraftLength(3, 3)) is None
        while not drafter.ready(log):
            await asyncio.sleep(0.01)
        draft = await drafter.draft(log, DraftLength(3, 3))
        assert draft is not None and len(draft.tokens) == 3
        assert drafter.losses == 0
        drafter.close()
        await freed(drafters)


async def test_an_engine_that_dies_fails_everyone_waiting_and_says_so() -> None:
    async with streams() as pool, replica(_Dying()) as verifiers:
        with pytest.raises(ServiceUnavailable, match="no verifier"):
            await write(pool, verifiers.lease)
        with pytest.raises(ReplicaLost, match="out of memory, says the test"):
            verifiers.check_health()


class _SlowDrafting(Drafting):
    """Lets the test act after so many drafted tokens."""

    def __init__(self, after: int, act: object) -> None:
        super().__init__()
        self._left, self._act = after, act

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list:
        self._left -= 1
        if self._left == 0:
            self._act()  # type: ignore[operator]
        return super().advance(sessions, logits)


async def test_a_drafter_that_dies_midway_is_replaced_and_the_text_is_unchanged() -> None:
    def die() -> None:
        raise MemoryError("dies midway")

    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifiers,
        replica(drafting_engine(_SlowDrafting(5, die)), "de/v1") as first,
        replica(drafting_engine(), "de/v2") as second,
    ):
        sources = iter([first.lease, second.lease])
        text, at_work = await write(pool, verifiers.lease, lambda: next(sources)())
    assert text == expected()
    assert at_work.index("de/v2") > at_work.index("de/v1")


async def test_a_verifier_that_is_lost_is_replaced_and_the_text_is_unchanged() -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as first,
        replica(tiny.verifier(tiny.model())) as second,
        replica(drafting_engine()) as drafters,
    ):
        sources = iter([first.lease, second.lease])
        tokens: list[int] = []
        verifier = RemoteVerifier(lambda: next(sources)(), pool, backoff_s=0)
        rounds = generate(REQUEST, verifier, speculation(pool, {"de": drafters.lease}))
        async for progress in rounds:
            tokens += progress.tokens
            if first.num_leases and len(tokens) > 8:
                await first.stop()
        assert tuple(tokens) == expected()
        await freed(second)


async def test_no_verifier_at_all_is_service_unavailable() -> None:
    async def dead() -> AsyncGenerator[LeaseGrant]:
        raise ReplicaLost("killed")
        yield

    async with streams() as pool:
        with pytest.raises(ServiceUnavailable):
            await write(pool, dead)


async def test_between_attempts_it_waits_and_after_the_last_one_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def dead() -> AsyncGenerator[LeaseGrant]:
        raise ReplicaLost("killed")
        yield

    monkeypatch.setattr("serve.remote_verifier.asyncio.sleep", sleep)
    async with streams() as pool:
        with pytest.raises(ServiceUnavailable):
            await RemoteVerifier(dead, pool, attempts=4, backoff_s=0.1).start(TokenLog(REQUEST))
    assert waits == [0.1, 0.2, 0.4]


async def test_leaving_midway_frees_both_slots() -> None:
    target, drafter = tiny.verifier(tiny.model()), drafting_engine()
    async with streams() as pool, replica(target) as verifiers, replica(drafter) as drafters:
        rounds = generate(REQUEST, RemoteVerifier(verifiers.lease, pool), speculation(pool, {"de": drafters.lease}))
        for _ in range(5):
            await anext(rounds)
        await rounds.aclose()  # type: ignore[attr-defined]
        await freed(verifiers, drafters)
    assert target.num_sessions == drafter.num_sessions == 0


async def test_a_text_is_written_a_little_ahead_of_whoever_reads_it() -> None:
    """It waits for a reader that is slow, not for what is done with each round meanwhile."""
    asked = answered = 0

    class Counting(RemoteVerifier):
        async def verify(self, log: TokenLog, draft: TokenIds) -> Verdict:
            nonlocal asked, answered
            asked += 1
            verdict = await super().verify(log, draft)
            answered += 1
            return verdict

    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        rounds = generate(REQUEST, Counting(verifiers.lease, pool), speculation(pool, {}))
        tokens = list((await anext(rounds)).tokens)
        assert asked == 2, "the second round is asked for before the first one is told"
        while answered < 3:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked == 3, "one round is to be read, another waits for it"
        async for progress in rounds:
            tokens += progress.tokens
    assert tuple(tokens) == expected()


async def test_the_next_question_leaves_before_a_round_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = 0
    flush = Connection._flush

    def flushed(connection: Connection) -> None:
        nonlocal questions
        flush(connection)
        questions += connection.peer.done() and bool(connection.peer.result().incarnation)  # the router's end

    monkeypatch.setattr(Connection, "_flush", flushed)
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        rounds = generate(REQUEST, RemoteVerifier(verifiers.lease, pool), speculation(pool, {}))
        await anext(rounds)
        assert questions == 2, "the first round's and the second's"
        await rounds.aclose()  # type: ignore[attr-defined]


async def test_leases_do_not_wait_for_the_reader_of_the_last_rounds() -> None:
    request = msgspec.structs.replace(REQUEST, max_tokens=3, max_draft_length=0)
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        rounds = generate(request, RemoteVerifier(verifiers.lease, pool), speculation(pool, {}, request))
        tokens = (await anext(rounds)).tokens
        await freed(verifiers)
        assert tokens + tuple([token async for progress in rounds for token in progress.tokens]) == expected(request)


async def test_a_frame_without_the_leases_token_is_refused() -> None:
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        grants = verifiers.lease()
        grant = await anext(grants)
        for token in ("", "guessed", grant.token):
            channel = await pool.channel(grant.address, grant.incarnation)
            request = Open(
                session=channel.session,
                token=token,
                committed=(1,),
                prompt_length=1,
                max_length=9,
                sampling=SamplingParams(),
            )
            channel.send(request)
            asking = channel.ask(Verify(session=channel.session, base=1))
            if token == grant.token:
                assert (await asking).base == 1
            else:
                with pytest.raises(SessionRefused, match="token"):
                    await asking
        stolen = await pool.channel(grant.address, grant.incarnation)
        stolen.send(msgspec.structs.replace(request, session=stolen.session))
        with pytest.raises(SessionRefused, match="used"):
            await stolen.ask(Verify(session=stolen.session, base=1))
        await grants.aclose()


async def test_another_incarnation_on_the_same_address_is_not_mistaken_for_the_replica() -> None:
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers:
        grants = verifiers.lease()
        grant = await anext(grants)
        with pytest.raises(ReplicaLost, match="another replica"):
            await pool.channel(grant.address, "somebody else")
        await grants.aclose()


async def test_a_connection_on_which_no_greeting_comes_in_time_is_closed() -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(2**10):
            pass
        ended.set_result(None)
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    pool = StreamPool(connect_timeout_s=0.05)
    with pytest.raises(ReplicaLost, match=str(port)):
        await pool.channel(f"{host}:{port}", "nobody")
    await asyncio.wait_for(ended, 5)
    assert pool._channels == {}
    server.close()


async def test_a_drafter_that_runs_ahead_changes_no_text_and_has_drafts_at_hand() -> None:
    requests = [msgspec.structs.replace(request, language="de") for request in tiny.requests(6, temperature=1.0)]
    drafting = drafting_engine(Drafting(run_ahead=64))
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifiers, replica(drafting) as drafters:

        async def stats(request: GenerationRequest) -> SpeculationStats:
            text = speculation(pool, {"de": drafters.lease}, request)
            last = [p async for p in generate(request, RemoteVerifier(verifiers.lease, pool, backoff_s=0), text)][-1]
            return last.stats

        texts = await asyncio.gather(*(write(pool, verifiers.lease, drafters.lease, r) for r in requests))
        assert [text for text, _ in texts] == [expected(r) for r in requests]
        told = [await stats(request) for request in requests]
        await freed(verifiers, drafters)
    ahead = sum((each for each in told), SpeculationStats())
    assert 0 < ahead.ahead_drafts <= ahead.ahead_tokens <= ahead.drafted_tokens
    drafting.check_integrity()
    assert drafting.memory.held_blocks == drafting.num_sessions == 0
