"""Forward Kullback-Leibler divergence, from the teacher to the student (Hinton et al. 2015, arXiv 1503.02531)."""

from __future__ import annotations

import torch
from torch import Tensor

from train.objectives.chunk import Chunk
from train.objectives.cross_entropy import weighted


def forward_kl(chunk: Chunk, scale: Tensor, slope: Tensor) -> Tensor:
    """sum over S of p (log p - log p(S) - log q) in nats: p(S) times KL(p given S || q).

    Over a part of the teacher's vocabulary KL(p || q) would be infinite whatever q is. This is the expectation, over
    the teacher's tokens, of what can be learnt from each: those outside S have no loss, as in cross-entropy.

    Of a sparse law the student's part alone, -sum over k of weight_k log q(token_k): without the teacher's entropy,
    which draws do not tell and no gradient depends on. Its gradient is unbiased for draws from p (Anshumann et al.
    2025, arXiv 2503.16870); for the k likeliest tokens it is that of p cut to them, which leaves q's tail too light.
    """
    if chunk.sparse_tokens is not None and chunk.sparse_weights is not None:
        return weighted(chunk, chunk.sparse_tokens, chunk.sparse_weights, scale, slope)
    assert chunk.log_p is not None
    slope.addcmul_(chunk.p, scale, value=-1.0)
    return (chunk.p * (chunk.log_p - chunk.log_q)).sum(-1) - torch.xlogy(chunk.kept, chunk.kept)
