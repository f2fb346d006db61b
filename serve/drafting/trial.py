"""Whether drafting pays on the clock: an A/B test between drafting and plain decoding that never ends.

`draft_length` adds up the legs of a round, which is all there is if drafters and verifier have devices of their own.
Where they share processor cores, drafting also slows down everything else, and no leg shows it. So what all texts
together write is measured, window by window, with drafting allowed and with drafting held back.

Which of the two a window gets is drawn by Thompson sampling (Thompson 1933): with the probability that it is the
faster one, by what has been measured at about this load and by what the legs promise, less what they have turned out
to leave out at this load or a lower one: what drafting takes from others does not become less with more of them. A
clear promise is hardly ever put to the test, a small one is until it is settled; then the slower way is tried now and
then, as drafters and load change. A window that turns out to be far slower than the other way is not sat out, nor is
one under quite another load than it began with.
"""

from __future__ import annotations

import math
from random import Random

SETTLING, MEASURED = 8, 24
"""Rounds a text at the start of a window, which still feel the one before, and those after them, which count."""
ENOUGH, FAR = 8, 3.0
"""Rounds a text that must count before a window is given up, and by how many standard deviations the other way must be
faster."""
JUMP = 3.0
"""Doublings of the load with which a window is given up: what was drawn for many texts says nothing of one."""
SPAN = 16
"""Windows of a kind that its average remembers."""
MEMORY = 0.99
"""What a window counts for after another of the other kind."""
NOISE, NOISE_WEIGHT = 0.1, 4.0
"""Relative standard deviation of a window's speed until it is known, and how many windows this counts for."""
DRIFT = 0.1
"""Standard deviation of what another load does to the gain, for each doubling."""

Normal = tuple[float, float]
"""Mean and variance of a logarithm: of a speed in tokens per second, or of how many times as fast drafting is."""


class Speeds:
    """Windows of one kind at about one load."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = 0.0
        """Of the logarithms."""
        self.variance = NOISE**2
        """Of one window's."""

    def add(self, log_speed: float) -> None:
        change = log_speed - self.mean
        if self.count:
            weight = 1.0 / (NOISE_WEIGHT + self.count)
            self.variance += weight * (change**2 * self.count / (self.count + 1.0) - self.variance)
        self.count = min(self.count + 1.0, SPAN)
        self.mean += change / self.count


class LoadLevel:
    """Both kinds of windows at about one load."""

    def __init__(self) -> None:
        self._drafting, self._plain = Speeds(), Speeds()
        self.promised = 0.0
        """Of the gain, on average over the windows with drafting."""

    def add(self, drafting: bool, log_speed: float, promise: float) -> None:
        measured, other = (self._drafting, self._plain) if drafting else (self._plain, self._drafting)
        measured.add(log_speed)
        other.count *= MEMORY
        if drafting:
            self.promised += (promise - self.promised) / measured.count

    def surpassed(self, drafting: bool, log_speed: float) -> bool:
        """Whether the other kind is known to be far faster than a window that goes on like this."""
        other = self._plain if drafting else self._drafting
        return other.count > 0 and log_speed < other.mean - FAR * math.sqrt(other.variance * (1.0 + 1.0 / other.count))

    def gain(self) -> Normal | None:
        """None until both kinds were measured."""
        drafting, plain = self._drafting, self._plain
        if not drafting.count or not plain.count:
            return None
        return drafting.mean - plain.mean, drafting.variance / drafting.count + plain.variance / plain.count


class DraftingTrial:
    """Of all texts of a router that may be drafted for.

    Args:
        doubt: standard deviation of what the legs promise, as a logarithm; at 0 they are believed.
    """

    def __init__(self, doubt: float, seed: int = 0) -> None:
        self.drafting = True
        """Whether texts may have drafts now."""
        self._doubt = doubt
        self._random = Random(seed)
        self._levels: dict[int, LoadLevel] = {}
        self._promise = 0.0
        """Mean over the latest texts, drafted for or not."""
        self._window = _Window()

    def observe(self, sessions: int, tokens: int, seconds: float, promise: float) -> None:
        """A text has written `tokens` in a round, `seconds` after its last, as one of `sessions` texts.

        `promise` is how many times as fast as plain decoding drafting should be by its legs.
        """
        if not self._doubt:
            return
        left = self._window.left(sessions)
        self._promise += (math.log(promise) - self._promise) / (1 if left else SETTLING * sessions)
        if left:
            self._draw(round(math.log2(sessions)))
        self._window.add(sessions, tokens, seconds)
        if self._window.rounds >= SETTLING + MEASURED or self._surpassed():
            level = self._window.level
            self._levels.setdefault(level, LoadLevel()).add(self.drafting, self._window.log_speed, self._promise)
            self._draw(level)

    def _draw(self, level: int) -> None:
        self._window = _Window()
        mean, variance = self._belief(level)
        self.drafting = self._random.gauss(mean, math.sqrt(variance)) > 0.0

    def _surpassed(self) -> bool:
        window = self._window
        at = self._levels.get(window.level) if window.rounds >= SETTLING + ENOUGH else None
        return at is not None and at.surpassed(self.drafting, window.log_speed)

    def _belief(self, level: int) -> Normal:
        """How many times as fast drafting is at about this load."""
        gains = {other: gain for other, at in self._levels.items() if (gain := at.gain()) is not None}
        nearest = max((other for other in gains if other <= level), default=None)
        missed = 0.0 if nearest is None else self._levels[nearest].promised - gains[nearest][0]
        beliefs = [(self._promise - missed, self._doubt**2)]
        beliefs += [(mean, variance + (DRIFT * (other - level)) ** 2) for other, (mean, variance) in gains.items()]
        precision = sum(1.0 / variance for _, variance in beliefs)
        return sum(mean / variance for mean, variance in beliefs) / precision, 1.0 / precision


class _Window:
    def __init__(self) -> None:
        self._began: float | None = None
        """The load then, in doublings."""
        self.rounds = 0.0
        """A text."""
        self._doublings = 0.0
        self._tokens = 0
        self._text_seconds = 0.0

    def add(self, sessions: int, tokens: int, seconds: float) -> None:
        self._began = math.log2(sessions) if self._began is None else self._began
        self.rounds += 1.0 / sessions
        if self.rounds > SETTLING:
            self._doublings += math.log2(sessions) * seconds
            self._tokens += tokens
            self._text_seconds += seconds

    def left(self, sessions: int) -> bool:
        """Whether the load is quite another one now."""
        return self._began is not None and abs(math.log2(sessions) - self._began) >= JUMP

    @property
    def level(self) -> int:
        """The load in doublings, over the whole window: at its end a text may just have ended."""
        return round(self._doublings / max(self._text_seconds, 1e-9))

    @property
    def log_speed(self) -> float:
        """Of a text."""
        return math.log(self._tokens / max(self._text_seconds, 1e-9))
