"""The open sessions of an engine: who has memory, and who waits for it.

The order in which sessions were opened decides everything: those with memory are always the oldest. When the pool
runs out, the youngest of them goes back to waiting, with its tokens and the question it has been asked, and what it
had cached is run again when its turn comes. So the oldest is never preempted, and as it fits the pool, it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import msgspec

from common.engine.prefix import Prefix
from common.engine.runner import Runner
from common.engine.session import Key, Session
from common.messages import Open
from common.types import TokenIds


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine's blocks are, and what sharing and preempting them came to since it was started."""

    free_blocks: int
    cached_blocks: int
    """Held by no session, but their text is known: free for whoever needs them, or shared by who has that text."""
    held_blocks: int
    prefix_hit_tokens: int
    """Tokens that did not have to be run, because their keys and values were cached."""
    preemptions: int


@dataclass(frozen=True, slots=True)
class _Refusal:
    """How things were when the oldest waiting session did not fit. To try again it takes a walk through its prompt."""

    session: Session
    length: int
    """Tokens that it needed memory for."""
    available: int
    running: int
    unknown: tuple[Prefix, TokenIds] | None
    """The next block that it could share, were it known."""

    def stands(self, session: Session, length: int, available: int, running: int) -> bool:
        """Whether nothing has become better since."""
        shared = self.unknown is not None and self.unknown[1] in self.unknown[0].children
        no_better = length >= self.length and available <= self.available and running >= self.running
        return session is self.session and no_better and not shared


class SessionTable:
    """Sessions by key, in the order they were opened.

    Args:
        ahead: how many tokens a session is going to run after its own.
    """

    def __init__(self, runner: Runner, ahead: Callable[[Session], int]) -> None:
        self._runner = runner
        self._ahead = ahead
        self._sessions: dict[Key, Session] = {}
        self._prefix_hit_tokens = 0
        self._preemptions = 0
        self._refusal: _Refusal | None = None

    def open(self, key: Key, request: Open) -> None:
        """Raises ValueError if the session could never be served here."""
        self._check(request)
        self.close(key)
        self._sessions[key] = Session(
            key=key,
            tokens=list(request.committed),
            prompt_length=request.prompt_length,
            sampling=request.sampling,
            max_length=request.max_length,
            committed=len(request.committed),
        )

    def get(self, key: Key) -> Session:
        """Raises ValueError if no such session is open."""
        try:
            return self._sessions[key]
        except KeyError:
            raise ValueError("session: not open") from None

    def close(self, key: Key) -> None:
        """Free what the session holds; closing twice is harmless."""
        session = self._sessions.pop(key, None)
        if session is not None:
            session.release()

    def admitted(self) -> list[Session]:
        """Sessions that have memory, oldest first, after letting in those that now fit."""
        admitted: list[Session] = []
        for session in self._sessions.values():
            waits = session.sequence is None and not self._admit(session, len(admitted))
            # Nobody runs ahead while another waits for memory.
            if waits and not (self._forgo() and self._admit(session, len(admitted))):
                break
            admitted.append(session)
        return admitted

    def grow(self, session: Session, num_tokens: int) -> bool:
        """Give it memory for `num_tokens` more, at the expense of younger sessions; False if it is the youngest."""
        while not session.cached.grow(num_tokens):
            if self._forgo():
                continue
            youngest = next(s for s in reversed(self._sessions.values()) if s.sequence is not None)
            youngest.release()
            self._preemptions += 1
            if youngest is session:
                return False
        return True

    def adopt(self, session: Session) -> None:
        """Let it share what others have run of its text."""
        self._prefix_hit_tokens += session.cached.adopt(session.tokens)

    @property
    def memory(self) -> MemoryUse:
        pool = self._runner.pool
        return MemoryUse(
            free_blocks=pool.free_blocks,
            cached_blocks=pool.cached_blocks,
            held_blocks=pool.held_blocks,
            prefix_hit_tokens=self._prefix_hit_tokens,
            preemptions=self._preemptions,
        )

    def check_integrity(self) -> None:
        """Every block is free, cached, or held by open sessions. Raises AssertionError (CacheIntegrityError)."""
        holders = chain.from_iterable((s, *s.branches) for s in self._sessions.values())
        blocks = (holder.sequence.blocks for holder in holders if holder.sequence is not None)
        self._runner.pool.check_integrity(Counter(chain.from_iterable(blocks)))

    def __len__(self) -> int:
        return len(self._sessions)

    def _forgo(self) -> bool:
        """Give up all that was drafted ahead; False if no memory has become free by that."""
        before = self._runner.pool.available_blocks
        for session in self._sessions.values():
            session.forgo()
        return self._runner.pool.available_blocks > before

    def _admit(self, session: Session, running: int) -> bool:
        """Give it memory for the tokens it has, if a block is left for each running session.

        Else those would soon preempt it again.
        """
        length, available = len(session.tokens) + self._ahead(session), self._runner.pool.available_blocks
        if available <= running:  # at least one block would be new
            return False
        if self._refusal is not None and self._refusal.stands(session, length, available, running):
            return False
        sequence = self._runner.begin()
        hits = sequence.adopt(session.tokens)
        if not sequence.grow(length - sequence.length, spare=running):
            unknown = sequence.next_block(session.tokens, session.committed)
            self._refusal = _Refusal(session, length, available, running, unknown)
            sequence.release()
            return False
        session.sequence = sequence
        self._prefix_hit_tokens += hits
        return True

    def _check(self, request: Open) -> None:
        runner = self._runner
        if not 1 <= len(request.committed) <= request.max_length:
            raise ValueError(f"committed: {len(request.committed)} tokens do not fit a text of {request.max_length}")
        if not 0 <= request.prompt_length <= request.max_length:
            raise ValueError(f"prompt_length: {request.prompt_length} of a text of {request.max_length} tokens")
        if request.max_length > runner.context_length:
            raise ValueError(f"max_length: {request.max_length} exceeds the context of {runner.context_length}")
        if request.max_length > runner.pool.capacity:
            raise ValueError(f"max_length: {request.max_length} exceeds the cache of {runner.pool.capacity} tokens")
        if not all(0 <= token < runner.vocabulary for token in request.committed):
            raise ValueError(f"committed: token ids must be below {runner.vocabulary}")
        if not all(token < runner.vocabulary for token, _ in request.sampling.logit_bias):
            raise ValueError(f"logit_bias: token ids must be below {runner.vocabulary}")
