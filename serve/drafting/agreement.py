"""How much the texts of a drafter draft when they go in step: one decision for all of them.

Texts that share the verifier's steps wait for each other's drafts, so one that writes plainly among drafted ones pays
for drafts and has none. If each decided alone, texts would differ wherever the gain is small, for their rates are
estimates, and all would be slower than with either choice. So each says what it expects of each length if all draft
so much, and the mean over the latest of them, about as many as are in progress, decides. A single text decides for
itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from serve.drafting.outlook import best_length


class Agreement:
    """Args:
    hysteresis: a length is left only for one that is better by this fraction.
    min_gain: by which fraction drafting must be better than plain decoding.
    """

    def __init__(self, hysteresis: float, min_gain: float) -> None:
        self._hysteresis = hysteresis
        self._min_gain = min_gain
        self._values: list[float] = []
        """Tokens per second of a text for n = 0, 1, …, on average."""
        self.length = 0
        """How much is drafted; 0 until somebody has been heard."""

    @property
    def gain(self) -> float:
        """How many times as fast as plain decoding the texts should be. Somebody must have been heard."""
        return self._values[self.length] / self._values[0]

    def hear(self, values: Sequence[float], sessions: int) -> int:
        """The length after one of `sessions` texts has said what it expects, in tokens per second for each length."""
        known = self._values
        known += values[len(known) :]
        for length, value in enumerate(values):
            known[length] += (value - known[length]) / sessions
        self.length = best_length(known, present=self.length, hysteresis=self._hysteresis, min_gain=self._min_gain)
        return self.length
