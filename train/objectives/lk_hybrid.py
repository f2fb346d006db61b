"""LK-hybrid (Samarin et al. 2026, "LK Losses: Direct Acceptance Rate Optimization for Speculative Decoding", arXiv
2602.23881): forward KL while the laws are far apart, where total variation has next to no gradient, and total
variation as they come close, where a small student's best KL is not its best acceptance.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from train.objectives.chunk import Chunk
from train.objectives.forward_kl import forward_kl
from train.objectives.total_variation import total_variation


@dataclass(frozen=True)
class LKHybrid:
    """lambda KL(p || q) + (1 - lambda) (1 - alpha), where lambda = exp(-eta alpha) counts as a constant.

    alpha is each position's own expected acceptance, so that a chunk needs to know nothing of the others.
    """

    eta: float

    def __call__(self, chunk: Chunk, scale: Tensor, slope: Tensor) -> Tensor:
        share = (-self.eta * chunk.acceptance).exp()
        divergence = forward_kl(chunk, scale * share[:, None], slope)
        variation = total_variation(chunk, scale * (1 - share[:, None]), slope)
        return share * divergence + (1 - share) * variation
