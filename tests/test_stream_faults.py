"""Streams on which frames are damaged, repeated, withheld, or cut off: the text is what it would have been, and
nothing is held afterwards at either end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache

import msgspec
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tampering import (
    BREAKING,
    LYING,
    SILENT,
    Fault,
    Faults,
    Tampering,
    changed,
    failing,
    preceded_by,
    proxied,
    reset,
    reset_after,
)
from transformers import PreTrainedModel

from common.engine import reference
from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.messages import Verdict
from common.models import Fingerprint
from common.types import GenerationRequest, TokenIds
from serve.drafting.draft_length import DraftLengthController
from serve.drafting.settings import SpeculationSettings
from serve.drafting.speculation import Speculation
from serve.errors import SessionRefused
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant, Replica
from serve.stream.streams import StreamPool

FINGERPRINT = Fingerprint(tokens="", special_tokens={}, vocab_size=tiny.VOCABULARY, context_length=256)
REQUESTS = [msgspec.structs.replace(r, language="de") for r in tiny.requests(4, temperature=1.0, max_tokens=32)]
WAYS = ("to_verifier", "from_verifier", "to_drafter", "from_drafter")


@cache
def target() -> PreTrainedModel:
    return tiny.model()


@cache
def drafting_model() -> PreTrainedModel:
    return tiny.perturbed(target(), 0.05)


@cache
def expected(request: GenerationRequest) -> TokenIds:
    return reference.generate_plain(reference.logits_of(tiny.model()), request)


class Deployed(dict[str, LeaseSource]):
    """Drafters by name. Implements `speculation.Drafters`."""

    def source(self, name: str | None) -> LeaseSource | None:
        return self.get(name or "")

    @property
    def warm(self) -> tuple[str, ...]:
        return tuple(self)


class Streams:
    """A verifier and a drafter behind tampering proxies, and the router's pool of streams."""

    def __init__(self, pool: StreamPool, verifier: LeaseSource, drafter: LeaseSource, deadline_s: float) -> None:
        self._pool = pool
        self._verifier = verifier
        self._drafter = drafter
        self._deadline_s = deadline_s

    async def write(self, request: GenerationRequest = REQUESTS[0]) -> TokenIds:
        """Its text."""
        verifier = RemoteVerifier(self._verifier, self._pool, backoff_s=0)
        lengths = DraftLengthController(SpeculationSettings(draft_length=3)).text()
        drafters = Deployed(de=self._drafter)
        drafting = Speculation(request, drafters, lengths, self._pool, load=lambda: 1, deadline_s=self._deadline_s)
        rounds = generate(request, verifier, drafting)
        return tuple([token async for progress in rounds for token in progress.tokens])


@asynccontextmanager
async def replica(engine: Engine) -> AsyncIterator[Replica]:
    """Checks at the end that nothing is held there any more."""
    made = Replica(lambda: engine, name="r", fingerprint=FINGERPRINT)
    await made.start()
    try:
        yield made
        async with asyncio.timeout(5):
            while made.num_leases or engine.num_sessions:
                await asyncio.sleep(0)
    finally:
        await made.stop()
    engine.check_integrity()


def after(event: asyncio.Event, source: LeaseSource) -> LeaseSource:
    async def leases() -> AsyncGenerator[LeaseGrant]:
        await event.wait()
        async for grant in source():
            yield grant

    return leases


@asynccontextmanager
async def streams(deadline_s: float, tamperings: Mapping[str, Tampering]) -> AsyncIterator[Streams]:
    """Tamperings by their way. Checks at the end that nothing is held at either end any more.

    No text begins before the drafter's stream has, so that its faults are met. `deadline_s` is what a draft that does
    not come costs.
    """
    pool = StreamPool()
    to_verifier, from_verifier, to_drafter, from_drafter = (tamperings.get(way) or Tampering({}) for way in WAYS)
    async with (
        replica(tiny.verifier(target())) as verifiers,
        replica(Engine(ModelRunner(drafting_model(), kv_tokens=4096), Drafting())) as drafters,
        proxied(verifiers.lease, to_verifier, from_verifier) as verifier,
        proxied(drafters.lease, to_drafter, from_drafter) as drafter,
    ):
        yield Streams(pool, after(to_drafter.begun, verifier), drafter, deadline_s)
        async with asyncio.timeout(5):  # else the router's end still has sessions
            while any(pool._channels.values()):
                await asyncio.sleep(0)
        pool.close()


async def text_under(way: str, faults: Faults) -> TokenIds:
    tampering = Tampering(faults)
    async with streams(0.3, {way: tampering}) as tampered:
        text = await tampered.write()
    assert tampering.hits, "the text was too short for its faults"
    return text


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("fault", [reset, reset_after])
@pytest.mark.parametrize("way", WAYS)
async def test_a_connection_reset_at_any_frame_leaves_the_text_as_it_is(way: str, fault: Fault, number: int) -> None:
    assert await text_under(way, {number: fault}) == expected(REQUESTS[0])


@pytest.mark.parametrize("fault", BREAKING)
@pytest.mark.parametrize("way", WAYS)
async def test_a_damaged_frame_leaves_the_text_as_it_is(way: str, fault: Fault) -> None:
    assert await text_under(way, {3: fault, 5: fault}) == expected(REQUESTS[0])


@pytest.mark.parametrize("fault", SILENT)
@pytest.mark.parametrize("way", ["to_drafter", "from_drafter"])
async def test_a_draft_that_does_not_come_in_time_leaves_the_text_as_it_is(way: str, fault: Fault) -> None:
    assert await text_under(way, {3: fault}) == expected(REQUESTS[0])


@pytest.mark.parametrize("fault", range(len(LYING)))
async def test_a_false_draft_leaves_the_text_as_it_is(fault: int) -> None:
    assert await text_under("from_drafter", {2: LYING[fault], 4: LYING[fault]}) == expected(REQUESTS[0])


@pytest.mark.parametrize("changes", [{"base": -1}, {"base": 1}, {"session": 7}])
async def test_a_verdict_about_something_else_is_passed_over(changes: dict[str, int]) -> None:
    fault = preceded_by(changed(Verdict, **changes, next_token=1))
    assert await text_under("from_verifier", {2: fault, 4: fault}) == expected(REQUESTS[0])


async def test_a_late_draft_is_passed_over() -> None:
    late: list[bytes] = []

    def hold(frame: bytes, before: bytes) -> Sequence[bytes]:
        late.append(frame)
        return ()

    def release(frame: bytes, before: bytes) -> Sequence[bytes]:
        return *late, frame

    assert await text_under("from_drafter", {2: hold, 3: release, 4: release}) == expected(REQUESTS[0])


async def test_a_verifier_that_fails_a_text_midway_is_replaced() -> None:
    assert await text_under("from_verifier", {4: failing}) == expected(REQUESTS[0])


async def test_a_verifier_that_never_takes_a_text_refuses_it() -> None:
    always = Tampering(dict.fromkeys(range(1, 20), failing))
    async with streams(0.3, {"from_verifier": always}) as tampered:
        with pytest.raises(SessionRefused, match="says the test"):
            await tampered.write()


async def test_answers_of_different_texts_may_come_in_any_order() -> None:
    def swaps() -> Tampering:
        held: list[bytes] = []

        def hold(frame: bytes, before: bytes) -> Sequence[bytes]:
            held.append(frame)
            return ()

        def swap(frame: bytes, before: bytes) -> Sequence[bytes]:
            return frame, held.pop()

        return Tampering({number: (hold, swap)[number % 2] for number in range(2, 10)})

    async with streams(0.3, {"from_verifier": swaps(), "from_drafter": swaps()}) as tampered:
        texts = await asyncio.gather(*map(tampered.write, REQUESTS))
    assert texts == list(map(expected, REQUESTS))


def schedule(most: int, *faults: Fault) -> st.SearchStrategy[Faults]:
    return st.dictionaries(st.integers(0, 20), st.sampled_from(faults), max_size=most)


@settings(max_examples=15, deadline=None)
@given(
    to_verifier=schedule(2, *BREAKING),  # after six failures in a row a text is given up
    from_verifier=schedule(3, *BREAKING),
    to_drafter=schedule(5, *BREAKING, *SILENT),
    from_drafter=schedule(5, *BREAKING, *SILENT, *LYING),
)
def test_no_schedule_of_faults_changes_a_text_or_leaks(**faults: Faults) -> None:
    async def write() -> list[TokenIds]:
        async with streams(0.05, {way: Tampering(of_way) for way, of_way in faults.items()}) as tampered:
            return await asyncio.gather(*map(tampered.write, REQUESTS))

    assert asyncio.run(write()) == list(map(expected, REQUESTS))
