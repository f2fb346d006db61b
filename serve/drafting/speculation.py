"""Who drafts for one text, and how much, round by round.

    a deployed drafter   of the language that was asked for or identified, once it has read the text
                         or the generalist, where there is none of the language
    n-gram lookup        until then, and where there is neither
    nobody               when drafting does not pay: the draft-length controller says 0

The drafter that was chosen at the start need not stay: see `audition`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import msgspec

from common.languages import GENERALIST
from common.messages import Verdict
from common.ngram import NgramLookup
from common.rounds import TokenLog
from common.types import GenerationRequest, StepCost, TokenIds
from serve.drafting.audition import Patience, audition
from serve.drafting.draft_length import TextDraftLength
from serve.drafting.outlook import NO_DRAFT, DraftLength
from serve.drafting.remote_drafter import RemoteDrafter
from serve.drafting.round import Round
from serve.stream.lease import LeaseSource
from serve.stream.streams import StreamPool

NGRAM = "ngram"
"""Name of the n-gram lookup among the drafters."""

logger = logging.getLogger(__name__)


class Drafters(Protocol):
    """The deployed drafters."""

    @property
    def warm(self) -> Collection[str]:
        """Names of those with a running replica."""

    def source(self, name: str | None) -> LeaseSource | None:
        """Where to lease a drafter; None if there is none of that name."""


class Drafted(msgspec.Struct, frozen=True, kw_only=True):
    """What a round is to verify."""

    tokens: TokenIds = ()
    name: str = NGRAM
    """Whose draft it is, or would have been."""
    version: str | None = None
    """What drafted, such as `de/v0003`; None if nothing did."""
    ahead: int = 0
    """How many of the tokens were drafted before they were asked for."""
    cost: StepCost = StepCost()
    wall_s: float = 0.0
    promise: float | None = None
    """See `DraftLength`."""
    sessions: int = 1
    """Texts that shared a verifier's steps when it was asked for."""


class Verified(NamedTuple):
    """What became of a draft."""

    drafted: Drafted
    verdict: Verdict
    wall_s: float
    """From asking for the verdict to having it."""
    seconds: float
    """Since the text's round before, or since it began."""


class Speculation:
    """Makes the drafts of one text, and learns from their verdicts.

    Args:
        lengths: chooses how much to draft.
        load: texts that share a verifier's steps now.
        deadline_s: a draft that takes longer is not waited for.
    """

    def __init__(
        self,
        request: GenerationRequest,
        drafters: Drafters,
        lengths: TextDraftLength,
        streams: StreamPool,
        *,
        load: Callable[[], int],
        deadline_s: float = 1.0,
    ) -> None:
        self._request = request
        self._drafters = drafters
        self._lengths = lengths
        self._streams = streams
        self._load = load
        self._deadline_s = deadline_s
        self._ngrams = NgramLookup()
        # Whoever asked for a drafter, or for none, gets just that.
        self._may_move = request.drafter is None and request.max_draft_length != 0
        self._patience = Patience()
        self._auditioning: asyncio.Task[RemoteDrafter | None] | None = None
        self._remote = self._remote_drafter(self._first_choice())
        self._earlier_losses = 0

    @property
    def losses(self) -> int:
        """Drafter replicas lost so far."""
        return self._earlier_losses + (self._remote.losses if self._remote is not None else 0)

    def start(self, log: TokenLog) -> None:
        """Ask for a lease if drafting pays at the moment; the text goes on meanwhile."""
        if self._remote is not None and self._lengths.pays(self._remote.name, self._load()):
            self._remote.start(log)

    async def draft(self, log: TokenLog) -> Drafted:
        """The next draft, perhaps empty. Nothing that a drafter does keeps the text from going on."""
        self._move()
        remote, sessions = self._remote, self._load()
        if remote is not None and log.stats.rounds == 0:
            await remote.arrive(self._lengths.patience_s(sessions))
        if remote is not None and remote.ready(log):
            length = self._length(remote.name, log, sessions)
            if length.wanted:
                return await self._ask(remote, log, length, sessions)
            remote.keep_in_step(log)
        elif remote is not None and not remote.asked:
            self.start(log)
        return self._look_up(log, sessions)

    def learn(self, log: TokenLog, verified: Verified) -> None:
        """From one round; the next may be under way."""
        drafted, verdict = verified.drafted, verified.verdict
        outcome = Round(
            drafted=len(drafted.tokens),
            accepted=verdict.accepted,
            ahead=drafted.ahead,
            draft_cost=drafted.cost,
            draft_wall_s=drafted.wall_s,
            verify_cost=verdict.cost,
            verify_wall_s=verified.wall_s,
            seconds=verified.seconds,
            promise=drafted.promise,
        )
        self._lengths.observe(drafted.name, outcome, drafted.sessions)
        if self._may_move:
            drafted_by_remote = bool(drafted.tokens) and self._remote is not None and drafted.name == self._remote.name
            self._patience.note(drafted=drafted_by_remote, hit=verdict.accepted > 0, written=verdict.accepted + 1)
            share = self._patience.lost(has_drafter=self._remote is not None)
            if share is not None and self._auditioning is None:
                self._hold_audition(log, share)

    def close(self) -> None:
        """Give up every lease, and take no other; nothing is waited for."""
        self._may_move = False
        auditioning, self._auditioning = self._auditioning, None
        if auditioning is not None:
            auditioning.cancel()  # if it is done already, this does nothing
            auditioning.add_done_callback(_close_chosen)
        if self._remote is not None:
            self._remote.close()

    def _first_choice(self) -> str | None:
        """What was asked for, the language's drafter, or the generalist."""
        if self._request.max_draft_length == 0:
            return None
        if self._request.drafter is not None:
            return self._request.drafter
        language = self._request.language
        return language if self._drafters.source(language) is not None else GENERALIST

    def _remote_drafter(self, name: str | None) -> RemoteDrafter | None:
        source = self._drafters.source(name)
        if name is None or source is None:
            return None
        return RemoteDrafter(name, source, self._streams, deadline_s=self._deadline_s)

    def _length(self, name: str, log: TokenLog, sessions: int) -> DraftLength:
        limit = log.room if self._request.max_draft_length is None else min(log.room, self._request.max_draft_length)
        return self._lengths.choose(name, sessions, limit) if limit else NO_DRAFT

    async def _ask(self, remote: RemoteDrafter, log: TokenLog, length: DraftLength, sessions: int) -> Drafted:
        version, asked = remote.version, time.perf_counter()
        draft = await remote.draft(log, length)
        wall_s = time.perf_counter() - asked
        if draft is None:  # only a wait to the very end says what its drafts take; a replica is lost at any time
            wall_s = wall_s if wall_s >= self._deadline_s else 0.0
            return Drafted(name=remote.name, wall_s=wall_s, promise=length.promise, sessions=sessions)
        return Drafted(
            tokens=draft.tokens,
            name=remote.name,
            version=version,
            ahead=draft.ahead,
            cost=draft.cost,
            wall_s=wall_s,
            promise=length.promise,
            sessions=sessions,
        )

    def _look_up(self, log: TokenLog, sessions: int) -> Drafted:
        length = self._length(NGRAM, log, sessions)
        tokens: TokenIds = ()
        if length.wanted:
            self._ngrams.extend(log.tokens[len(self._ngrams) :])
            tokens = self._ngrams.propose(length.wanted)
        return Drafted(tokens=tokens, version=NGRAM if tokens else None, promise=length.promise, sessions=sessions)

    def _hold_audition(self, log: TokenLog, share: float) -> None:
        at_work, load = self._remote.name if self._remote is not None else None, self._load()
        names = [name for name in self._drafters.warm if name != at_work and self._lengths.pays(name, load)]
        candidates = [drafter for drafter in map(self._remote_drafter, names) if drafter is not None]
        if candidates:
            self._auditioning = asyncio.create_task(audition(log, candidates, share))

    def _move(self) -> None:
        """Change over to the drafter that an audition has found better, if one has."""
        if self._auditioning is None or not self._auditioning.done():
            return
        chosen, self._auditioning = _chosen(self._auditioning), None
        if chosen is None:
            return
        if self._remote is not None:
            self._earlier_losses += self._remote.losses
            self._remote.close()
        logger.info("drafter %s goes on", chosen.name)
        self._remote = chosen


def _chosen(auditioning: asyncio.Task[RemoteDrafter | None]) -> RemoteDrafter | None:
    """The text is not to suffer if the audition failed."""
    if auditioning.cancelled():
        return None
    error = auditioning.exception()
    if error is not None:
        logger.error("an audition failed", exc_info=error)
        return None
    return auditioning.result()


def _close_chosen(auditioning: asyncio.Task[RemoteDrafter | None]) -> None:
    chosen = _chosen(auditioning)
    if chosen is not None:
        chosen.close()
