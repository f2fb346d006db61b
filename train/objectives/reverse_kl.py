"""Reverse Kullback-Leibler divergence, from the student to the teacher (Gu et al. 2024, arXiv 2306.08543)."""

from __future__ import annotations

from torch import Tensor

from train.objectives.chunk import Chunk


def reverse_kl(chunk: Chunk, scale: Tensor, slope: Tensor) -> Tensor:
    """KL(q || p) = sum over S of q (log q - log p) in nats; q is 0 elsewhere, so nothing is lost outside S."""
    assert chunk.log_p is not None
    # The derivative by log q is q (log q - log p + 1); the 1 has none by the logits, since q sums to 1.
    parts = chunk.q * (chunk.log_q - chunk.log_p)
    slope.addcmul_(parts, scale)
    return parts.sum(-1)
