"""Verifiers that hang, and ones that are only slow: the first are replaced, the second waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import tiny
from remote import FINGERPRINT, freed
from tampering import Tampering, proxied
from test_session import REQUEST, expected, speculation
from torch import Tensor

from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.session import Session
from common.engine.verification import Verification
from common.messages import Alive, Prefilled, Verdict
from serve.errors import ReplicaLost, ServiceOverloaded
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.stream.hedging import hedged
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant, Replica
from serve.stream.streams import StreamPool
from serve.stream.wire import encode

SILENCE_S = 0.5
BEAT_S = 0.05


class _Blocking(Verification):
    """The fifth step goes on until it is released."""

    def __init__(self) -> None:
        self.steps = 0
        self.released = threading.Event()

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict | Prefilled]:
        self.steps += 1
        if self.steps == 5:
            assert self.released.wait(timeout=60)
        return super().advance(sessions, logits)


class _Heard(Tampering):
    """Passes frames on, or with `mute` set nothing; calls `on_beat` for each sign of life."""

    def __init__(self, on_beat: Callable[[], None] = lambda: None) -> None:
        super().__init__({})
        self.mute = False
        self._on_beat = on_beat

    def __call__(self, frame: bytes) -> Sequence[bytes]:
        if frame == encode(Alive()):
            self._on_beat()
        return () if self.mute else [frame]


@asynccontextmanager
async def verifying(role: Verification | None = None, longest_step_s: float = 60.0) -> AsyncIterator[Replica]:
    engine = Engine(ModelRunner(tiny.model(), kv_tokens=1024), role or Verification())
    made = Replica(lambda: engine, name="v", fingerprint=FINGERPRINT, longest_step_s=longest_step_s, beat_s=BEAT_S)
    await made.start()
    yield made
    await made.stop()


async def write(*sources: LeaseSource, on_round: Callable[[int], None] = lambda tokens: None) -> int:
    """Checks the text, written with leases from these sources one after the other; returns how many were lost."""
    pool, left = StreamPool(silence_s=SILENCE_S), iter(sources)
    verifier = RemoteVerifier(lambda: next(left)(), pool, backoff_s=0)
    tokens: list[int] = []
    async for progress in generate(REQUEST, verifier, speculation(pool, {})):
        tokens += progress.tokens
        on_round(len(tokens))
    pool.close()
    assert tuple(tokens) == expected()
    return verifier.losses


async def test_a_verifier_of_which_nothing_is_heard_is_replaced() -> None:
    answers = _Heard()

    def hang(tokens: int) -> None:
        answers.mute = tokens > 8

    async with (
        verifying() as first,
        verifying() as second,
        proxied(first.lease, Tampering({}), answers) as hanging,
    ):
        assert await write(hanging, second.lease, on_round=hang) == 1
        await freed(first, second)


async def test_a_step_may_take_longer_than_a_silence() -> None:
    role, beats = _Blocking(), 0

    def count() -> None:
        nonlocal beats
        beats += role.steps == 5
        if beats * BEAT_S > 2 * SILENCE_S:
            role.released.set()

    async with (
        verifying(role) as verifier,
        proxied(verifier.lease, Tampering({}), _Heard(count)) as slow,
    ):
        assert await write(slow) == 0
    assert role.released.is_set()


async def test_a_step_that_never_ends_makes_the_replica_a_dead_one() -> None:
    role = _Blocking()
    async with verifying(role, longest_step_s=0.1) as first, verifying() as second:
        assert await write(first.lease, second.lease) == 1
        with pytest.raises(ReplicaLost, match="at one step for more than"):
            first.check_health()
        with pytest.raises(ReplicaLost, match="one step"):
            await anext(first.lease())
        role.released.set()


class _Calls:
    """A lease source: each call waits until the test says what becomes of it."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[LeaseGrant]] = []
        self.open = 0
        self.ended = asyncio.Event()

    async def lease(self) -> AsyncGenerator[LeaseGrant]:
        outcome: asyncio.Future[LeaseGrant] = asyncio.get_running_loop().create_future()
        self.made.append(outcome)
        self.open += 1
        try:
            yield await outcome
            await self.ended.wait()
        finally:
            self.open -= 1

    async def count(self, number: int) -> None:
        """Returns once so many calls have been made."""
        async with asyncio.timeout(20):
            while len(self.made) < number:
                await asyncio.sleep(0)


def grant(token: str) -> LeaseGrant:
    return LeaseGrant(address="", token=token, incarnation="", name="v", fingerprint=FINGERPRINT)


async def test_a_lease_that_is_not_granted_is_asked_for_anew_and_the_first_grant_is_taken() -> None:
    calls = _Calls()
    leases = hedged(calls.lease, patience_s=0.01)()
    granted = asyncio.create_task(anext(leases))  # type: ignore[arg-type]
    await calls.count(3)
    calls.made[1].set_result(grant("second"))
    assert (await granted).token == "second"
    assert calls.open == 1, "the others were given up"
    calls.ended.set()
    with pytest.raises(StopAsyncIteration):
        await anext(leases)
    assert calls.open == 0


async def test_a_lease_that_is_granted_at_once_is_asked_for_once() -> None:
    calls = _Calls()
    leases = hedged(calls.lease, patience_s=20)()
    granted = asyncio.create_task(anext(leases))  # type: ignore[arg-type]
    await calls.count(1)
    calls.made[0].set_result(grant("only"))
    assert (await granted).token == "only"
    await leases.aclose()
    assert (len(calls.made), calls.open) == (1, 0)


@pytest.mark.parametrize("last", [ServiceOverloaded("full"), ReplicaLost("killed")])
async def test_only_the_failure_of_the_last_call_counts(last: Exception) -> None:
    calls = _Calls()
    granted = asyncio.create_task(anext(hedged(calls.lease, patience_s=0.01)()))  # type: ignore[arg-type]
    await calls.count(2)
    calls.made[0].set_exception(ReplicaLost("the first"))
    await calls.count(3)  # so the first one's failure did not end it
    for call in calls.made[1:]:
        call.set_exception(last)
    with pytest.raises(type(last), match=str(last.args[0])):
        await granted


async def test_who_leaves_while_waiting_leaves_no_call_behind() -> None:
    calls = _Calls()
    granted = asyncio.create_task(anext(hedged(calls.lease, patience_s=0.01)()))  # type: ignore[arg-type]
    await calls.count(2)
    granted.cancel()
    await asyncio.wait([granted])
    assert calls.open == 0
