"""The open sessions of an engine: admission by reserved memory, and what each still has to prefill."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from common.engine.cache import CachedSequence
from common.engine.runner import ModelRunner
from common.messages import Open, Question
from common.types import SamplingParams, StepCost

_FREE = StepCost()

Key = Hashable
"""Names a session within an engine: what serves it decides how."""


@dataclass(slots=True)
class Session:
    """One text at this engine."""

    key: Key
    tokens: list[int]
    """Committed tokens; at a drafter also the ones it has drafted on top."""
    prompt_length: int
    """How many of them are the client's."""
    sampling: SamplingParams
    max_length: int
    sequence: CachedSequence | None = None
    """Its memory, once admitted."""
    work: Question | None = None
    """The question being answered."""
    spent: StepCost = _FREE
    """What that has cost so far."""

    @property
    def cached(self) -> CachedSequence:
        assert self.sequence is not None, "only admitted sessions are run"
        return self.sequence

    @property
    def uncached(self) -> int:
        """Tokens not run yet; at least the last one never is before its logits are wanted."""
        return len(self.tokens) - self.cached.length


class SessionTable:
    """Sessions by key. One is admitted when memory for its longest length is free, first come, first served."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._sessions: dict[Key, Session] = {}
        self._waiting: deque[Session] = deque()

    def open(self, key: Key, request: Open) -> None:
        """Raises ValueError if the session could never be served here."""
        self._check(request)
        self.close(key)
        session = Session(key, list(request.committed), request.prompt_length, request.sampling, request.max_length)
        self._sessions[key] = session
        self._waiting.append(session)

    def get(self, key: Key) -> Session:
        """Raises ValueError if no such session is open."""
        try:
            return self._sessions[key]
        except KeyError:
            raise ValueError("session: not open") from None

    def close(self, key: Key) -> None:
        """Free what the session holds; closing twice is harmless."""
        session = self._sessions.pop(key, None)
        if session is None:
            return
        if session.sequence is None:
            self._waiting.remove(session)
        else:
            self._runner.end(session.sequence)

    def admitted(self) -> Iterator[Session]:
        """Sessions that have memory, after letting in those that now fit."""
        while self._waiting:
            sequence = self._runner.begin(self._waiting[0].max_length)
            if sequence is None:
                break
            self._waiting.popleft().sequence = sequence
        return (s for s in self._sessions.values() if s.sequence is not None)

    def check_integrity(self) -> None:
        """Every lent block belongs to one open session. Raises AssertionError (CacheIntegrityError)."""
        self._runner.pool.check_integrity()
        held = sum(len(s.sequence.blocks) for s in self._sessions.values() if s.sequence is not None)
        assert held == self._runner.pool.num_blocks - self._runner.pool.free_blocks, "blocks without a session"

    def __len__(self) -> int:
        return len(self._sessions)

    def _check(self, request: Open) -> None:
        runner = self._runner
        if not 1 <= len(request.committed) <= request.max_length:
            raise ValueError(f"committed: {len(request.committed)} tokens do not fit a text of {request.max_length}")
        if not 0 <= request.prompt_length <= len(request.committed):
            raise ValueError(f"prompt_length: {request.prompt_length} of {len(request.committed)} tokens")
        if request.max_length > runner.context_length:
            raise ValueError(f"max_length: {request.max_length} exceeds the context of {runner.context_length}")
        if request.max_length > runner.pool.capacity:
            raise ValueError(f"max_length: {request.max_length} exceeds the cache of {runner.pool.capacity} tokens")
        if not all(0 <= token < runner.vocabulary for token in request.committed):
            raise ValueError(f"committed: token ids must be below {runner.vocabulary}")
