"""The laws at a few positions, which is all that the objectives' terms see at a time.

p is the teacher's law, q the student's, n the number of positions, V the size of the student's vocabulary S. When S
is part of the teacher's vocabulary, `p` holds the probabilities of its tokens as they are: they sum to p(S) < 1, and
the teacher writes a token that the student cannot propose with probability 1 - p(S).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Tokens are given as rows of the student's vocabulary."""

    log_q: Tensor
    """[n, V]"""
    tokens: Tensor
    """[n] labels; IGNORED where the label is outside the student's vocabulary."""
    log_p: Tensor | None = None
    """[n, V] of a dense teacher."""
    sparse_tokens: Tensor | None = None
    """[n, K] of a sparse teacher, IGNORED where outside."""
    sparse_weights: Tensor | None = None
    """[n, K]"""

    @cached_property
    def q(self) -> Tensor:
        """[n, V]"""
        return self.log_q.exp()

    @cached_property
    def p(self) -> Tensor:
        """[n, V]"""
        assert self.log_p is not None
        return self.log_p.exp()

    @cached_property
    def kept(self) -> Tensor:
        """[n] p(S), the probability that the teacher writes a token that the student can propose."""
        return self.p.sum(-1)

    @cached_property
    def acceptance(self) -> Tensor:
        """[n] sum over S of min(p, q): the probability that a token drawn from q is accepted (Leviathan et al. 2023,
        arXiv 2211.17192). Tokens outside S, which only the teacher writes, add nothing."""
        return torch.minimum(self.p, self.q).sum(-1)


class TermFunction(Protocol):
    """One term of an objective at the positions of a chunk."""

    def __call__(self, chunk: Chunk, scale: Tensor, slope: Tensor) -> Tensor:
        """The loss [n]; its derivative by log q times `scale` (broadcast to [n, 1]) is added to `slope` [n, V].

        By log q, not by the logits z: as d log q_u / d z_v = [u = v] - q_v, any sum of terms has the derivative
        slope_v - q_v x (sum over u of slope_u) by z_v, which is worked out once for all of them.
        """
        ...
