"""An engine that answers at once, for benchmarks of what is around it."""

from __future__ import annotations

from common.engine.emulation import StepTimes
from common.engine.sessions import Key
from common.messages import Draft, Propose, Reply, Request, Verdict, Verify
from common.types import StepCost

_NOTHING = StepTimes(base_s=0.0)


class InstantEngine:
    """Drafts and verifies; of a draft it accepts now more, now less. Implements `engine_thread.SteppedEngine`.

    The token at each position of a text is the position, so that no text repeats itself.

    Args:
        says: how long it pretends that a step took.
    """

    num_sessions = 0

    def __init__(self, says: StepTimes = _NOTHING) -> None:
        self._says = says
        self._asked: list[tuple[Key, Propose | Verify]] = []

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def handle(self, key: Key, request: Request) -> None:
        if isinstance(request, Propose | Verify):
            self._asked.append((key, request))

    def step(self) -> list[tuple[Key, Reply]]:
        asked, self._asked = self._asked, []
        tokens = sum(1 + len(request.draft) for _, request in asked if isinstance(request, Verify))
        verified = StepCost(self._says.seconds(tokens), tokens)
        return [
            (key, _verdict(request, verified) if isinstance(request, Verify) else self._draft(request))
            for key, request in asked
        ]

    def check_integrity(self) -> None: ...

    def _draft(self, request: Propose) -> Draft:
        base, count = request.base + len(request.committed), request.count
        cost = StepCost(count * self._says.seconds(1), count)
        return Draft(session=request.session, base=base, tokens=tuple(range(base, base + count)), cost=cost)


def _verdict(request: Verify, cost: StepCost) -> Verdict:
    base = request.base
    accepted = 7 * base % 11 % (len(request.draft) + 1)
    return Verdict(session=request.session, base=base, accepted=accepted, next_token=base + accepted, cost=cost)
