"""When to draft otherwise than what seems best, so that what seems best stays true."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

MAX_EXPLORATION = 1 / 8
"""At most this share of the rounds explores in one direction, however cheap it is."""


class Exploration:
    """Now and then all texts of a drafter draft otherwise than what seems best, for about one step.

    The best of the longer drafts finds out about later positions, and whether a drafter that was switched off is good
    again; none at all keeps the cost of plain decoding known. All texts do it together, because the cost of a step is
    learned from steps of that size, and at random, because in a fixed rhythm it might always meet the same text.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        self._share = share
        self._random = Random(seed)
        self._remaining = 0
        self._plain = False

    def vary(self, length: int, values: Sequence[float], seconds: Sequence[float], sessions: int) -> int:
        """`length`, or what to try instead.

        Args:
            values: tokens per second for each length that may be chosen.
            seconds: of a round, for at least as many lengths.
            sessions: texts that choose.
        """
        if not self._remaining and self._share:
            self._begin(length, values, seconds, sessions)
        if not self._remaining:
            return length
        self._remaining -= 1
        return 0 if self._plain else _longer(length, values)

    def _begin(self, length: int, values: Sequence[float], seconds: Sequence[float], sessions: int) -> None:
        """With a chance such that the texts lose about the share of their time that is given to it.

        It is given to what may turn out to be best; the less, the worse it is by what is known.
        """
        roll = self._random.random() * sessions
        if roll >= 2 * MAX_EXPLORATION:
            return
        for plain, other in ((False, _longer(length, values)), (True, 0)):
            if other != length:
                # In rounds: the time it takes, less the time in which the same tokens would have been had.
                value = values[other] / values[length]
                loss = seconds[other] / seconds[length] * (1.0 - value)
                share = self._share * value
                roll -= share / max(loss, share / MAX_EXPLORATION)
                if roll < 0.0:
                    self._plain, self._remaining = plain, sessions
                    return


def _longer(length: int, values: Sequence[float]) -> int:
    """The best of the lengths above, itself if there is none."""
    return max(range(length + 1, len(values)), key=values.__getitem__, default=length)
