"""The engine: many sessions, one model, one packed forward pass a step.

What the forward passes are for is the role's business: `verification.Verification` makes the engine a verifier,
`drafting.Drafting` a drafter. A step runs whatever is pending: every session that owes an answer and whose prompt is
cached, and chunks of the prompts that are not, so that a long prompt does not hold up the others. Sessions are served
in the order they were opened only where memory is short; see `sessions.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from torch import Tensor

from common.engine import run_ahead
from common.engine.batch import Feed
from common.engine.runner import Runner
from common.engine.session import Key, Session
from common.engine.sessions import MemoryUse, SessionTable
from common.messages import Answer, Close, Failure, Open, Prefill, Question, Reply, Request
from common.types import StepCost


class Role(Protocol):
    """What an engine does for its sessions."""

    @property
    def run_ahead(self) -> int:
        """Most tokens that a step runs although nobody asked for them; see `run_ahead`."""

    def take(self, session: Session, question: Question, vocabulary: int) -> Answer | None:
        """Accept a question; the answer, if it needs no forward pass. Raises ValueError, naming the field."""

    def extra_tokens(self, session: Session, room: int) -> Sequence[int]:
        """Tokens to run after the session's own; logits are wanted from its last own token on.

        Of a prompt's tokens no more than `room`, but one at least.
        """

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> Sequence[Answer | None]:
        """Use the logits [1 + extra tokens, V] of each session; None for a session that needs another step."""


class Engine:
    """Not thread-safe: `handle` and `step` belong to one thread.

    Args:
        prefill_chunk: most prompt tokens run in one step. What answers need is run besides, whatever it is: an answer
            put off frees nothing, and a session adds no more than its draft and a token.
        prefix_caching: sessions share what their texts begin with, also with those that are closed.
        on_step: told what each forward pass cost.
    """

    def __init__(
        self,
        runner: Runner,
        role: Role,
        *,
        prefill_chunk: int = 512,
        prefix_caching: bool = True,
        on_step: Callable[[StepCost], object] = lambda cost: None,
    ) -> None:
        self._runner = runner
        self._role = role
        self._chunk = prefill_chunk
        self._prefix_caching = prefix_caching
        self._on_step = on_step
        self.num_waiting = 0
        """Sessions that waited for memory in the latest step."""
        self._table = SessionTable(runner, lambda session: len(self._extra_tokens(session, prefill_chunk)))
        self._replies: list[tuple[Key, Reply]] = []

    def handle(self, key: Key, request: Request) -> None:
        """Take a request; one that cannot be served is answered with a Failure by the next step."""
        try:
            match request:
                case Open():
                    self._table.open(key, request)
                case Close():
                    self._table.close(key)
                    self._replies = [each for each in self._replies if each[0] != key]
                case _:
                    self._ask(self._table.get(key), request)
        except ValueError as error:
            self._table.close(key)
            self._replies.append((key, Failure(session=request.session, message=str(error))))

    def step(self) -> list[tuple[Key, Reply]]:
        """Answer what needs no pass, or run the model once over what is pending; returns the answers that are ready."""
        planned = self._plan() if not self._replies else ()
        if planned:
            self._run(planned)
        replies, self._replies = self._replies, []
        return replies

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._replies) or any(session.pending for session in self._table.admitted())

    @property
    def num_sessions(self) -> int:
        return len(self._table)

    @property
    def memory(self) -> MemoryUse:
        return self._table.memory

    def check_integrity(self) -> None:
        """Raises AssertionError if memory was leaked or lent twice."""
        self._table.check_integrity()

    def _ask(self, session: Session, question: Question) -> None:
        reply = self._role.take(session, question, self._runner.vocabulary)
        self._replies += [(session.key, reply)] if reply else []

    def _run(self, planned: Sequence[tuple[Session, Feed]]) -> None:
        started = time.perf_counter()
        logits = self._runner.forward([feed for _, feed in planned])
        if self._prefix_caching:
            for session, _ in planned:
                session.cached.register(session.committed)
        asked = [session for session, _ in planned if session.work]
        answering = [(s, rows) for (s, feed), rows in zip(planned, logits, strict=True) if feed.wanted]
        sessions = [session for session, _ in answering]
        answers = self._role.advance(sessions, [rows for _, rows in answering]) if answering else ()
        cost = StepCost(time.perf_counter() - started, sum(len(feed.tokens) for _, feed in planned))
        self._on_step(cost)
        for session in asked:
            session.spent += cost
        for session, answer in zip(sessions, answers, strict=True):
            if answer is not None:
                self._replies.append((session.key, msgspec.structs.replace(answer, cost=session.spent)))
                session.spent = StepCost()

    def _plan(self) -> list[tuple[Session, Feed]]:
        sessions = self._table.admitted()
        self.num_waiting = len(self._table) - len(sessions)
        prefilling: set[object] = set()
        ready = [session for session in sessions if not self._waits(session, prefilling)]
        share = _share([self._behind(session) for session in ready], self._chunk)
        planned: list[tuple[Session, Feed]] = []
        for session in ready:
            if session.sequence is None:
                continue  # it was preempted for an older one
            feed = self._feed(session, share)
            if feed is not None and self._table.grow(session, len(feed.tokens)):
                planned.append((session, feed))
        if self._role.run_ahead and not self.num_waiting:
            planned += run_ahead.plan(sessions, self._role.run_ahead)
        return planned

    def _waits(self, session: Session, prefilling: set[object]) -> bool:
        """Whether an older session runs the same text at the same place in this step, so that it need not."""
        if session.uncached == 1 or not self._prefix_caching:
            return False
        self._table.adopt(session)
        block = session.cached.next_block(session.tokens, session.committed)
        if block is None or block not in prefilling:
            prefilling.add(block)
            return False
        return True

    def _behind(self, session: Session) -> int:
        """Tokens to run before those that an answer needs; of a prompt that is scored, any number."""
        return self._chunk if isinstance(session.work, Prefill) else session.uncached - 1

    def _feed(self, session: Session, share: int) -> Feed | None:
        start, unprefilled = session.cached.length, session.uncached - 1
        if session.work and unprefilled <= share:
            extra = self._extra_tokens(session, share - unprefilled)
            return Feed(session.cached, [*session.tokens[start:], *extra], wanted=1 + len(extra))
        # The last token is left for the feed that wants its logits.
        chunk = session.tokens[start : start + min(unprefilled, share)]
        return Feed(session.cached, chunk, wanted=0) if chunk else None

    def _extra_tokens(self, session: Session, room: int) -> Sequence[int]:
        return self._role.extra_tokens(session, room) if session.work else ()


def _share(behind: Sequence[int], room: int) -> int:
    """Most tokens for each of those who are `behind`, so that all together have `room`: in equal shares, as a short
    prompt is not to wait for a long one that came before it; what some do not need the others have."""
    share, waiting = room, sorted(tokens for tokens in behind if tokens)
    for number, tokens in enumerate(waiting):
        share = room // (len(waiting) - number)
        if tokens > share:
            break
        room -= tokens
    return max(1, share)
