"""The training loss: cross-entropy on the labelled positions only, a chunk of them at a time.

The tensor [labelled positions, vocabulary] is by far the largest of a small model's training step; it never exists.
Each chunk's gradients are computed together with its loss, as in Liger Kernel's fused linear cross-entropy
(Hsu et al. 2024, arXiv 2410.10989), so the logits are computed once and nothing is kept for the backward pass but
the gradients themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.packing import IGNORED

CHUNK = 1024
"""Positions per chunk; with 32,000 token ids a chunk of logits is 131 MB in float32."""


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk: int = CHUNK) -> tuple[Tensor, int]:
    """Sum of -log p(label) in nats over the labelled positions, and their number.

    `hidden` [rows, length, width] are the decoder's final states, `weight` [vocabulary, width] the output
    projection, `labels` [rows, length] the tokens as in PackedRows: position t is predicted from t - 1.
    The sum is float32 (float64 for float64 models) and differentiable by `hidden` and `weight`.
    """
    wanted = labels[:, 1:] != IGNORED
    states, tokens = hidden[:, :-1][wanted], labels[:, 1:][wanted]
    loss: Tensor = _ChunkedCrossEntropy.apply(states, weight, tokens.long(), chunk)
    return loss, tokens.numel()


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, tokens: Tensor, chunk: int) -> Tensor:
        exact = torch.promote_types(weight.dtype, torch.float32)
        loss = torch.zeros((), dtype=exact, device=states.device)
        states_grad = torch.empty_like(states)
        weight_grad = torch.zeros_like(weight, dtype=exact)
        for start in range(0, len(tokens), chunk):
            span = slice(start, start + chunk)
            logits = (states[span] @ weight.T).to(exact)
            log_normaliser = logits.logsumexp(dim=-1, keepdim=True)
            label = tokens[span, None]
            loss += (log_normaliser - logits.gather(-1, label)).sum()
            # d loss / d logits = softmax - one-hot(label), written over the logits.
            slope = logits.sub_(log_normaliser).exp_()
            slope.scatter_add_(-1, label, slope.new_full((), -1.0).expand_as(label))
            slope = slope.to(weight.dtype)
            states_grad[span] = slope @ weight
            weight_grad += slope.T @ states[span]
        ctx.save_for_backward(states_grad, weight_grad.to(weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states_grad, weight_grad = ctx.saved_tensors
        return states_grad * grad, weight_grad * grad, None, None
