"""Who drafts for a text: the drafter asked for, the language's, the one that suits it better, n-gram lookup, nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import tiny
from test_session import Deployed, _Hanging, _SlowDrafting, expected, freed, replica, streams

from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.languages import GENERALIST
from common.messages import Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, Progress, TokenIds
from serve.drafting.draft_length import DraftLengthController
from serve.drafting.outlook import DraftLength
from serve.drafting.remote_drafter import FOLLOW_EVERY
from serve.drafting.round import Round
from serve.drafting.settings import SpeculationSettings
from serve.drafting.speculation import NGRAM, Drafted, Speculation, Verified
from serve.errors import ReplicaLost, RequestTimeout
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.stream.replica import Replica
from serve.stream.streams import StreamPool

LONG = tiny.requests(1, temperature=1.0, max_tokens=120)[0]


def engine(good: bool = True) -> Engine:
    model = tiny.perturbed(tiny.model(), 0.05) if good else tiny.model(seed=5)
    return Engine(ModelRunner(model, kv_tokens=1024), Drafting())


class Scripted:
    """Draft lengths by the number of the round, whatever the drafter."""

    def __init__(self, length: Callable[[int], int], patience_s: float = 0.0) -> None:
        self._length = length
        self._patience_s = patience_s
        self._rounds = 0
        self.waits: list[float] = []
        """In rounds without a draft."""
        self.loads: list[int] = []
        """With which each round was told to have been."""

    def pays(self, drafter: str, sessions: int) -> bool:
        return self._length(self._rounds) > 0

    def patience_s(self, sessions: int) -> float:
        return self._patience_s

    def choose(self, drafter: str, sessions: int, limit: int) -> DraftLength:
        length = min(limit, self._length(self._rounds))
        return DraftLength(length, length)

    def observe(self, drafter: str, round: Round, sessions: int) -> None:
        self._rounds += 1
        self.waits += [] if round.drafted else [round.draft_wall_s]
        self.loads.append(sessions)


async def write(
    pool: StreamPool,
    verifier: Replica,
    drafters: dict[str, Replica],
    request: GenerationRequest,
    lengths: Any = None,
) -> list[Progress]:
    chosen = lengths or DraftLengthController(SpeculationSettings(draft_length=3)).text()
    sources = Deployed({name: drafter.lease for name, drafter in drafters.items()})
    speculation = Speculation(request, sources, chosen, pool, load=lambda: 1)
    rounds = [progress async for progress in generate(request, RemoteVerifier(verifier.lease, pool), speculation)]
    assert tuple(token for progress in rounds for token in progress.tokens) == expected(request)
    await freed(verifier, *drafters.values())
    return rounds


def asking(request: GenerationRequest = LONG, **changes: Any) -> GenerationRequest:
    return msgspec.structs.replace(request, **changes)


@pytest.mark.parametrize("language", ["fr", None], ids=["guessed wrong", "unknown"])
async def test_a_text_moves_to_the_drafter_that_suits_it(language: str | None) -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(engine(good=False), "fr/v1") as french,
        replica(engine(), "de/v1") as german,
    ):
        rounds = await write(pool, verifier, {"fr": french, "de": german}, asking(language=language))
    at_work = [progress.drafter for progress in rounds]
    assert at_work[-1] == "de/v1"
    assert ("fr/v1" in at_work) == (language == "fr")


async def test_a_drafter_that_was_asked_for_stays() -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(engine(good=False), "fr/v1") as french,
        replica(engine(), "de/v1") as german,
    ):
        rounds = await write(pool, verifier, {"fr": french, "de": german}, asking(language="de", drafter="fr"))
    assert "fr/v1" in {progress.drafter for progress in rounds} <= {"fr/v1", NGRAM, None}


async def test_a_language_without_a_drafter_gets_the_generalist() -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(engine(), "generalist/v1") as generalist,
    ):
        rounds = await write(pool, verifier, {GENERALIST: generalist}, asking(language="pl"))
    assert rounds[-1].drafter == "generalist/v1"


async def test_repeating_text_is_drafted_by_lookup() -> None:
    loop = tiny.requests(1, temperature=0.0, max_tokens=100)[0]
    repeating = asking(loop, prompt=(*loop.prompt, *expected(loop)), max_tokens=60, stop_token_ids=frozenset())
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifier:
        rounds = await write(pool, verifier, {}, asking(repeating, drafter=NGRAM))
    assert rounds[-1].stats.accepted_tokens > 0
    assert NGRAM in {progress.drafter for progress in rounds} <= {NGRAM, None}


async def test_a_first_draft_that_comes_soon_is_verified_with_the_prompt() -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(engine(), "de/v1") as german,
    ):
        rounds = await write(pool, verifier, {"de": german}, asking(language="de"), Scripted(lambda _: 3, 30.0))
    assert rounds[0].drafter == "de/v1"


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_no_more_is_drafted_than_the_request_allows(most: int) -> None:
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(engine(), "de/v1") as german,
    ):
        rounds = await write(pool, verifier, {"de": german}, asking(language="de", max_draft_length=most))
    assert max(len(progress.tokens) for progress in rounds) == most + 1
    assert rounds[-1].stats.drafted_tokens <= most * len(rounds)


async def test_no_drafter_is_leased_for_a_text_that_is_not_drafted() -> None:
    """Neither at the start nor for an audition; whether the request wants it so or drafting does not pay."""

    def forbidden() -> Any:
        raise AssertionError("a lease was asked for")

    unwanted, unprofitable = asking(language="de", max_draft_length=0), asking(language="de")
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifier:
        for request, lengths in ((unwanted, Scripted(lambda _: 3)), (unprofitable, Scripted(lambda _: 0))):
            speculation = Speculation(
                request, Deployed({"de": forbidden, "fr": forbidden}), lengths, pool, load=lambda: 1
            )
            rounds = generate(request, RemoteVerifier(verifier.lease, pool), speculation)
            assert sum([len(progress.tokens) async for progress in rounds]) == len(expected(request))


async def test_a_drafter_keeps_in_step_while_it_is_off() -> None:
    """On for a few rounds, off for more tokens than it may fall behind, and on again: it drafts as well as before."""
    off = range(3, 3 + 2 * FOLLOW_EVERY)  # in rounds that were learned from, which is all but the latest
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(engine(), "de/v1") as german,
    ):
        lengths = Scripted(lambda number: 0 if number in off else 3)
        rounds = await write(pool, verifier, {"de": german}, asking(language="de"), lengths)
    on_again = off.stop + 1
    assert {progress.drafter for progress in rounds[off.start + 1 : on_again]} == {None}
    after = rounds[-1].stats.accepted_tokens - rounds[on_again - 1].stats.accepted_tokens
    assert rounds[-1].drafter == "de/v1" and after > len(rounds) - on_again


async def test_a_round_is_of_the_load_that_it_began_with() -> None:
    """All other texts end while this one's draft is verified."""
    load = [8]

    class LastOfMany(RemoteVerifier):
        async def verify(self, log: TokenLog, draft: TokenIds) -> Verdict:
            load[0] = 1
            verdict = await super().verify(log, draft)
            load[0] = 8
            return verdict

    lengths = Scripted(lambda number: 0)
    async with streams() as pool, replica(tiny.verifier(tiny.model())) as verifier:
        speculation = Speculation(LONG, Deployed(), lengths, pool, load=lambda: load[0])  # type: ignore[arg-type]
        async for _ in generate(LONG, LastOfMany(verifier.lease, pool), speculation):
            pass
    assert set(lengths.loads) == {8}


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "late"])
async def test_only_a_draft_that_is_too_late_says_what_drafts_take(lost: bool) -> None:
    over = threading.Event()

    def act() -> None:
        if lost:
            raise MemoryError("dies midway")
        over.wait()

    lengths = Scripted(lambda number: 3)
    drafting = Engine(ModelRunner(tiny.model(), kv_tokens=1024), _SlowDrafting(5, act))
    async with (
        streams() as pool,
        replica(tiny.verifier(tiny.model())) as verifier,
        replica(drafting, "de/v1") as drafter,
    ):
        speculation = Speculation(
            asking(language="de"),
            Deployed({"de": drafter.lease}),
            lengths,  # type: ignore[arg-type]
            pool,
            load=lambda: 1,
            deadline_s=0.05,
        )
        rounds = [each async for each in generate(LONG, RemoteVerifier(verifier.lease, pool), speculation)]
        over.set()
    assert any(progress.drafter == "de/v1" for progress in rounds)
    waited = [wait for wait in lengths.waits if wait]
    assert not waited if lost else len(waited) == 1 and waited[0] >= 0.05


async def test_an_answer_that_takes_too_long_is_given_up_and_frees_its_slot() -> None:
    async with streams() as pool, replica(_Hanging()) as verifier:
        lengths = DraftLengthController(SpeculationSettings(draft_length=0)).text()
        speculation = Speculation(LONG, Deployed(), lengths, pool, load=lambda: 1)
        rounds = generate(LONG, RemoteVerifier(verifier.lease, pool), speculation, time_limit_s=0.05)
        with pytest.raises(RequestTimeout, match=r"0\.05 s"):
            await anext(rounds)
        await freed(verifier)


@pytest.mark.parametrize("over", [False, True])
async def test_no_audition_is_held_for_a_text_whose_writing_is_over(over: bool) -> None:
    """A reader that is behind learns from rounds that nobody drafted well, after all leases were given up."""
    leased: list[str] = []

    def source() -> Any:
        leased.append("fr")
        raise ReplicaLost("it need not be had")

    async with streams() as pool:
        request = asking(language="de")
        speculation = Speculation(request, Deployed({"fr": source}), Scripted(lambda _: 3), pool, load=lambda: 1)
        if over:
            speculation.close()
        for base in range(200):
            verdict = Verdict(session=1, base=base, accepted=0, next_token=1)
            speculation.learn(TokenLog(request), Verified(Drafted(), verdict, wall_s=0.01, seconds=0.01))
            await asyncio.sleep(0)
        speculation.close()
    assert bool(leased) is not over
