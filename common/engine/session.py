"""One text at an engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from common.engine.sequence import CachedSequence
from common.messages import Question
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
    """How many tokens of the text are the client's."""
    sampling: SamplingParams
    max_length: int
    committed: int = 0
    """How many tokens are known to be committed, and so may be shared with other sessions."""
    sequence: CachedSequence | None = None
    """Its memory, unless it waits for it."""
    work: Question | None = None
    """The question being answered."""
    spent: StepCost = _FREE
    """What that has cost so far."""
    depth: int = 0
    """Tokens worth drafting ahead, see `run_ahead`; all below is about that."""
    expected: int = 0
    """How many of its tokens will be committed when the next draft is asked for, if the text goes on in this way."""
    at_hand: int = 0
    """How many tokens of the draft asked for were drafted before."""
    runner_ups: list[int] = field(default_factory=list)
    """The runner-up of each drafted token, the last one's last; none where nothing is drafted ahead."""
    branches: list[Session] = field(default_factory=list)
    """Other ways in which the text may go on, likeliest first; all have memory."""
    guesses: deque[tuple[int, int]] = field(default_factory=deque)
    """Places among the tokens, and what may be drawn there, for branches to come."""
    guessed: int = 0
    """How many of the tokens were guessed about."""

    @property
    def cached(self) -> CachedSequence:
        assert self.sequence is not None, "only sessions with memory are run"
        return self.sequence

    @property
    def uncached(self) -> int:
        """Tokens not run yet; at least the last one never is before its logits are wanted."""
        return len(self.tokens) - self.cached.length

    @property
    def running_ahead(self) -> bool:
        """Whether more is to be drafted without being asked for; the last token of a text is never worth it."""
        goal = min(self.expected + self.depth, self.max_length - 1)
        return self.depth > 0 and self.work is None and len(self.tokens) < goal

    @property
    def pending(self) -> bool:
        """Whether a step would do anything for it, asked or not."""
        asked = self.work is not None or self.uncached > 1
        return asked or self.running_ahead or (self.depth > 0 and self._may_branch)

    def release(self) -> None:
        """Give its memory back; it waits from then on."""
        self.end_branches()
        if self.sequence is not None:
            self.sequence.release()
            self.sequence = None

    def end_branches(self) -> None:
        for branch in self.branches:
            branch.release()
        self.branches.clear()
        self.guesses.clear()

    def forgo(self) -> None:
        """Give up all that was drafted ahead, and the memory of it."""
        self.end_branches()
        excess = len(self.tokens) - (self.expected - 1)
        if self.depth and self.work is None and excess > 0:
            del self.tokens[-excess:]
            if self.sequence is not None:
                self.sequence.rollback(len(self.tokens) - 1)
        self.runner_ups.clear()
        self.depth = 0

    @property
    def _may_branch(self) -> bool:
        return bool(self.guesses) or any(branch.running_ahead for branch in self.branches)
