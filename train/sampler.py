"""Which rows each step learns from: a function of seed and step alone, so that resuming needs no state."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


class RowSampler:
    """Goes through all rows in a new random order each epoch; a step may end one epoch and begin the next."""

    def __init__(self, rows: int, rows_per_step: int, seed: int) -> None:
        self._rows, self._rows_per_step, self._seed = rows, rows_per_step, seed
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """[rows_per_step] row numbers of step `step` (from 0), over all workers."""
        first = step * self._rows_per_step
        return np.array([self._row(place) for place in range(first, first + self._rows_per_step)])

    def _row(self, place: int) -> int:
        epoch, index = divmod(place, self._rows)
        return int(self._order(epoch)[index])

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(self._rows)
