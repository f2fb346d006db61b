"""What a teacher says about N positions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class DenseTeacher:
    """Its full law, still as states, since [N, vocabulary] probabilities are too large to exist at once."""

    states: Tensor
    """[N, teacher's width] final states."""
    weight: Tensor
    """[teacher's vocabulary, teacher's width] output projection."""


@dataclass(frozen=True, slots=True)
class SparseTeacher:
    """K weighted tokens a position: its likeliest with their probabilities, or draws from its law with 1/K each."""

    ids: Tensor
    """[N, K] token ids; one may occur more than once."""
    weights: Tensor
    """[N, K]; 0 where there is none."""
