"""An engine that answers at once, for benchmarks of what is around it."""

from __future__ import annotations

from common.engine.sessions import Key
from common.messages import Draft, Propose, Reply, Request, Verdict, Verify
from common.types import StepCost

DRAFTED, NEXT = 11, 15
"""The tokens that it writes."""
_FREE = StepCost()


class InstantEngine:
    """Drafts always the same and accepts everything. Implements `engine_thread.SteppedEngine`.

    Args:
        verdict_cost: what it says that a verdict cost.
        token_cost: what it says that a drafted token cost.
    """

    num_sessions = 0

    def __init__(self, verdict_cost: StepCost = _FREE, token_cost: StepCost = _FREE) -> None:
        self._verdict_cost = verdict_cost
        self._token_cost = token_cost
        self._replies: list[tuple[Key, Reply]] = []

    @property
    def busy(self) -> bool:
        return bool(self._replies)

    def handle(self, key: Key, request: Request) -> None:
        match request:
            case Propose():
                self._replies.append((key, self._draft(request)))
            case Verify():
                accepted = len(request.draft)
                verdict = Verdict(
                    session=request.session,
                    base=request.base,
                    accepted=accepted,
                    next_token=NEXT,
                    cost=self._verdict_cost,
                )
                self._replies.append((key, verdict))

    def step(self) -> list[tuple[Key, Reply]]:
        replies, self._replies = self._replies, []
        return replies

    def check_integrity(self) -> None: ...

    def _draft(self, request: Propose) -> Draft:
        each = self._token_cost
        return Draft(
            session=request.session,
            base=request.base + len(request.committed),
            tokens=(DRAFTED,) * request.count,
            cost=StepCost(request.count * each.seconds, request.count * each.tokens),
        )
