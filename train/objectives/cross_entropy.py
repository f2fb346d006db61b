"""Cross-entropy: -log q(token), with the labels or with a teacher's choice of tokens."""

from __future__ import annotations

from torch import Tensor

from train.objectives.chunk import Chunk
from train.packing import IGNORED


def cross_entropy(chunk: Chunk, scale: Tensor, slope: Tensor) -> Tensor:
    """-log q(label) in nats; 0 where the student cannot propose the label."""
    return weighted(chunk, chunk.tokens[:, None], chunk.log_q.new_ones(()), scale, slope)


def weighted(chunk: Chunk, tokens: Tensor, weights: Tensor, scale: Tensor, slope: Tensor) -> Tensor:
    """-sum over k of weights_k log q(tokens_k), both [n, K]; tokens may repeat, IGNORED ones add nothing."""
    weights = weights.to(slope).expand(tokens.shape).masked_fill(tokens == IGNORED, 0.0)
    tokens = tokens.clamp(min=0)
    slope.scatter_add_(-1, tokens, -weights * scale)
    return -(weights * chunk.log_q.gather(-1, tokens)).sum(-1)
