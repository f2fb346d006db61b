"""Total variation, the share of drafted tokens that the target turns down."""

from __future__ import annotations

from torch import Tensor

from train.objectives.chunk import Chunk


def total_variation(chunk: Chunk, scale: Tensor, slope: Tensor) -> Tensor:
    """1/2 sum over all tokens of |p - q| = 1 - sum over S of min(p, q), in [0, 1].

    Both laws sum to 1, so this holds for a part S of the vocabulary too: the teacher's 1 - p(S) is lost to acceptance.
    """
    slope.addcmul_(chunk.q * (chunk.q < chunk.p), scale, value=-1.0)
    return 1.0 - chunk.acceptance
