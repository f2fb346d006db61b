"""What the pipeline benchmark emulates, and the most that serial speculation could make of it.

Serial: a text is either being drafted for or being verified. All texts at the verifier share one step, and so do all at
the drafter, a token each a step; the best that many texts can do is thus to go in step with one another.
"""

from __future__ import annotations

import msgspec

from common.engine.drafting import Drafting
from common.engine.emulation import EmulatedDrafter, EmulatedEngine, EmulatedTarget, StepTimes
from common.engine.engine import Engine
from common.engine.verification import Verification

LONGEST = 64
"""Drafts that the ideal is looked for among."""
WORDS = 512
"""Token ids that emulated texts consist of; one more ends a text, and is never written."""
CONTEXT_LENGTH = 2**17
_KV_TOKENS = 2**19


class Emulated(msgspec.Struct, frozen=True, kw_only=True):
    """Times of a verifier's and a drafter's step, and how good the drafter is. Raises ValueError, naming the field."""

    verify: StepTimes = StepTimes(base_s=25e-3)
    draft: StepTimes = StepTimes(base_s=1.5e-3)
    acceptance: float = 0.8
    """Per position, given that all before it were accepted."""
    runner_up: float = 0.5
    """Where the drafter's first choice is wrong, how often its second is right."""

    def __post_init__(self) -> None:
        self._drafter()  # it checks the probabilities
        if not self.verify.base_s + self.verify.token_s > 0.0:
            raise ValueError("verify: a step takes some time, or no throughput is the highest")

    def expected_tokens(self, drafted: int) -> float:
        """Output tokens of a round with so many drafted, the recovered or bonus token included."""
        return sum(self.acceptance**k for k in range(drafted + 1))

    def round_s(self, drafted: int, streams: int) -> float:
        """A round in which `streams` texts go in step."""
        return drafted * self.draft.seconds(streams) + self.verify.seconds(streams * (1 + drafted))

    def tokens_per_s(self, drafted: int, streams: int) -> float:
        """Of all streams, without any coordination."""
        return streams * self.expected_tokens(drafted) / self.round_s(drafted, streams)

    def best_length(self, streams: int) -> int:
        return max(range(LONGEST + 1), key=lambda drafted: self.tokens_per_s(drafted, streams))

    def ideal(self, streams: int) -> float:
        """max over n of streams * E[tokens(n)] / (n * draft step + verify step), in tokens per second."""
        return self.tokens_per_s(self.best_length(streams), streams)

    def verifier_engine(self) -> Engine:
        return self._engine(verifies=True)

    def drafter_engine(self) -> Engine:
        return self._engine(verifies=False)

    def _engine(self, *, verifies: bool) -> Engine:
        drafter = self._drafter()
        return EmulatedEngine(
            drafter.target if verifies else drafter,
            Verification() if verifies else Drafting(),
            self.verify if verifies else self.draft,
            vocabulary=WORDS + 1,
            context_length=CONTEXT_LENGTH,
            kv_tokens=_KV_TOKENS,
        )

    def _drafter(self) -> EmulatedDrafter:
        target = EmulatedTarget(words=WORDS)
        return EmulatedDrafter(target=target, acceptance=self.acceptance, runner_up=self.runner_up)


def emulate(
    *, verify_ms: float, verify_token_ms: float, draft_ms: float, acceptance: float, runner_up: float
) -> Emulated:
    """Of times in milliseconds. Raises ValueError, naming what is wrong."""
    return Emulated(
        verify=StepTimes(base_s=verify_ms / 1e3, token_s=verify_token_ms / 1e3),
        draft=StepTimes(base_s=draft_ms / 1e3),
        acceptance=acceptance,
        runner_up=runner_up,
    )
