"""How likely the next drafted token is accepted, position by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class AcceptanceRates:
    """Exponential averages of P(position k is accepted | all before it are), k = 0, 1, ….

    Until `window` drafts have come as far as a position its average is the plain mean; from then on older ones fade.

    Example: of four tokens drafted two are accepted: positions 0 and 1 saw a success, 2 a failure, 3 nothing.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._means: list[float] = []
        self._counts: list[int] = []

    @property
    def seen(self) -> int:
        """How many positions were ever reached."""
        return len(self._means)

    def observe(self, drafted: int, accepted: int) -> None:
        for position in range(min(drafted, accepted + 1)):
            if position == len(self._means):
                self._means.append(0.0)
                self._counts.append(0)
            count = self._counts[position] = min(self._counts[position] + 1, self._window)
            self._means[position] += ((position < accepted) - self._means[position]) / count

    def given(self, priors: Sequence[float], weight: float) -> list[float]:
        """The rates for as many positions as there are `priors`, each prior worth `weight` observations at first.

        It fades as observations come in, and is gone when the window is full: a text that its drafter never hits must
        not be credited with the drafter's success elsewhere.
        """
        fading = weight / self._window
        blended = [
            (prior * (own := weight - fading * count) + count * mean) / (own + count)
            for prior, count, mean in zip(priors, self._counts, self._means, strict=False)
        ]
        return [*blended, *priors[len(blended) :]]

    def chained(self, first: float, weight: float, length: int) -> list[float]:
        """The rates of `length` positions: the prior of each is the rate of the one before it, `first` for the first.

        A position not seen yet is thus as good as the last one seen.
        """
        return list(self._chain(first, weight, length))

    def _chain(self, rate: float, weight: float, length: int) -> Iterator[float]:
        for position in range(length):
            if position < len(self._means):
                count = self._counts[position]
                rate = (weight * rate + count * self._means[position]) / (weight + count)
            yield rate
