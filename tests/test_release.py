"""Whenever a text is cancelled, at whatever turn of the event loop, all its leases are given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
import tiny
from test_session import FINGERPRINT, Deployed

from common.messages import Close, Draft, Open, Propose, Question, Scored, Verdict, Verify
from common.rounds import TokenLog
from common.types import GenerationRequest
from serve.drafting.audition import WINDOW, audition
from serve.drafting.outlook import DraftLength
from serve.drafting.remote_drafter import RemoteDrafter
from serve.drafting.speculation import Speculation
from serve.errors import ReplicaLost
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.stream.hedging import hedged
from serve.stream.lease import LeaseSource, take_lease
from serve.stream.replica import LeaseGrant

REQUEST = GenerationRequest(
    prompt=(5, 6, 7), max_tokens=WINDOW + 12, sampling=tiny.requests(1, temperature=1.0)[0].sampling, language="fr"
)
TURNS = 3
"""Of the event loop, that anything takes which may take some."""


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Deployments:
    """Model replicas that answer within a few turns, and the streams to them: what is held there is counted.

    Stands in for `StreamPool` too. The drafter `de` agrees with the target, any other does not.
    """

    def __init__(self) -> None:
        self.leases: Counter[str] = Counter()
        self.channels: set[Any] = set()
        self.opened = 0
        self.breaks_in: Callable[[Any], bool] = lambda message: False
        """Messages that cannot be sent."""

    def source(self, name: str) -> LeaseSource:
        async def leases() -> AsyncGenerator[LeaseGrant]:
            await turns()
            self.leases[name] += 1
            try:
                yield LeaseGrant(address=name, token="", incarnation="", name=name, fingerprint=FINGERPRINT)
                await asyncio.Event().wait()
            finally:
                self.leases[name] -= 1

        return leases

    async def channel(self, address: str, incarnation: str) -> _Channel:
        await turns()
        made = _Channel(self, address)
        self.channels.add(made)
        return made

    def forget(self, channel: _Channel) -> None:
        self.channels.discard(channel)

    @property
    def held(self) -> int:
        return self.leases.total() + len(self.channels) + self.opened


class _Channel:
    session = 1

    def __init__(self, deployments: Deployments, name: str) -> None:
        self._deployments = deployments
        self._name = name

    def send(self, message: Open | Close | Propose) -> None:
        if self._deployments.breaks_in(message):
            raise OverflowError("says the test")
        self._deployments.opened += {Open: 1, Close: -1}.get(type(message), 0)

    async def ask(self, question: Question, within_s: float | None = None) -> Any:
        await turns()
        match question:
            case Verify():
                return Verdict(session=1, base=question.base, accepted=0, next_token=9)
            case Propose():
                return Draft(session=1, base=question.base + len(question.committed), tokens=(8,) * question.count)
        return Scored(session=1, base=question.base, agreed=WINDOW if self._name == "de" else 0)

    def fail(self, error: Exception) -> None: ...


class _Always:
    """Drafts two tokens a round."""

    def pays(self, *args: object) -> bool:
        return True

    def patience_s(self, *args: object) -> float:
        return 0.0

    def choose(self, *args: object) -> DraftLength:
        return DraftLength(2, 2)

    def observe(self, *args: object) -> None: ...


def text(deployments: Deployments) -> AsyncGenerator[object]:
    """French at first; then the German drafter wins an audition against two others."""
    sources = Deployed({name: deployments.source(name) for name in ("de", "fr", "it", "es")})
    speculation = Speculation(REQUEST, sources, _Always(), deployments, load=lambda: 1)  # type: ignore[arg-type]
    verifier = RemoteVerifier(hedged(deployments.source("target"), 0.0), deployments)  # type: ignore[arg-type]
    return generate(REQUEST, verifier, speculation)


async def freed(deployments: Deployments) -> None:
    await turns(20)
    assert deployments.held == 0, deployments.leases


async def _cancelled_at_every_turn(work: Callable[[Deployments], Any], again_after: int) -> int:
    """The turns that the work takes; cancelled at each of them, and again a little later, it leaves nothing behind."""
    for turn in range(5000):
        deployments = Deployments()
        task = asyncio.create_task(work(deployments))
        await turns(turn)
        ended = task.done()
        task.cancel()
        await turns(again_after)
        task.cancel()
        await asyncio.wait([task])
        await freed(deployments)
        if ended:
            return turn
    raise AssertionError("it does not end")


again = pytest.mark.parametrize("again_after", range(4))


@again
async def test_a_text_that_is_cancelled_at_any_turn_gives_up_all_leases(again_after: int) -> None:
    moved = False

    async def write(deployments: Deployments) -> None:
        nonlocal moved
        async with aclosing(text(deployments)) as rounds:
            async for _ in rounds:
                moved |= deployments.leases == Counter(target=1, de=1)

    assert await _cancelled_at_every_turn(write, again_after) > 3 * WINDOW
    assert moved, "the audition belongs to it"


@again
async def test_an_audition_that_is_cancelled_at_any_turn_gives_up_all_leases(again_after: int) -> None:
    async def choose(deployments: Deployments) -> None:
        log = TokenLog(msgspec.structs.replace(REQUEST, prompt=(5,) * 40))
        candidates = [RemoteDrafter(name, deployments.source(name), deployments) for name in ("fr", "de", "it")]  # type: ignore[arg-type]
        chosen = await audition(log, candidates, 0.0)
        assert chosen is candidates[1] and deployments.leases["de"] == 1
        chosen.close()

    assert await _cancelled_at_every_turn(choose, again_after) > 3 * TURNS


async def test_a_text_given_up_between_its_rounds_gives_up_all_leases() -> None:
    for rounds in range(1, WINDOW + 12):
        deployments = Deployments()
        written = text(deployments)
        for _ in range(rounds):
            await anext(written)
        await written.aclose()
        await freed(deployments)


async def test_a_drafter_that_is_closed_takes_no_other_lease() -> None:
    deployments = Deployments()
    drafter = RemoteDrafter("de", deployments.source("de"), deployments)  # type: ignore[arg-type]
    log = TokenLog(REQUEST)
    drafter.start(log)
    await turns(20)
    assert drafter.ready(log)
    drafter.close()
    drafter.start(log)
    await freed(deployments)


@pytest.mark.parametrize("kind", [Open, Propose])
async def test_a_message_that_cannot_be_sent_leaves_no_lease(kind: type) -> None:
    deployments = Deployments()
    deployments.breaks_in = lambda message: isinstance(message, kind)
    lease = await take_lease(deployments.source("de"), deployments)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        lease.follow(TokenLog(REQUEST))
    lease.release()
    await freed(deployments)


async def test_a_call_that_breaks_tells_whoever_waits_for_its_replica() -> None:
    deployments = Deployments()
    told: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def leases() -> AsyncGenerator[LeaseGrant]:
        async with aclosing(deployments.source("de")()) as grants:
            async for grant in grants:
                yield grant
                raise ZeroDivisionError("nothing that a replica dies of")

    async def channel(address: str, incarnation: str) -> _Channel:
        made = _Channel(deployments, address)
        made.fail = told.set_result  # type: ignore[method-assign]
        return made

    deployments.channel = channel  # type: ignore[method-assign]
    lease = await take_lease(leases, deployments)  # type: ignore[arg-type]
    assert isinstance(await told, ReplicaLost)
    with pytest.raises(ZeroDivisionError):
        await lease._watch
    lease.release()
    await freed(deployments)
