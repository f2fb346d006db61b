"""Terms summed over positions, a chunk of them at a time.

The tensor [positions, vocabulary] is by far the largest of a small model's training step; it never exists. Each
chunk's gradients are computed together with its loss, as in Liger Kernel's fused linear cross-entropy (Hsu et al.
2024, arXiv 2410.10989), so logits are computed once and nothing is kept for the backward pass but the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.objectives.chunk import Chunk, TermFunction
from train.objectives.teacher import DenseTeacher, SparseTeacher
from train.packing import IGNORED


@dataclass(frozen=True)
class Positions:
    """What N positions are taught."""

    tokens: Tensor
    """[N] token ids."""
    teacher: DenseTeacher | SparseTeacher | None
    ids: Tensor | None
    """[V] the token ids, ascending, that the student's rows stand for; None: each row is its own id."""

    def chunks(self, states: Tensor, weight: Tensor, size: int) -> Iterator[tuple[slice, Chunk]]:
        """The student's law, from its final states [N, width] and its output projection [V, width], and the rest."""
        for start in range(0, len(states), size):
            span = slice(start, start + size)
            log_q = _log_law(states[span], weight)
            tokens = self._rows(self.tokens[span], len(weight))
            match self.teacher:
                case DenseTeacher():
                    yield span, Chunk(log_q, tokens, log_p=self._log_p(self.teacher, span, log_q))
                case SparseTeacher():
                    chosen = self._rows(self.teacher.ids[span], len(weight))
                    yield span, Chunk(log_q, tokens, sparse_tokens=chosen, sparse_weights=self.teacher.weights[span])
                case None:
                    yield span, Chunk(log_q, tokens)

    def _log_p(self, teacher: DenseTeacher, span: slice, log_q: Tensor) -> Tensor:
        log_p = _log_law(teacher.states[span], teacher.weight).to(log_q.dtype)
        return log_p[:, : log_q.shape[1]] if self.ids is None else log_p.index_select(1, self.ids)

    def _rows(self, tokens: Tensor, rows: int) -> Tensor:
        """Rows of the student's vocabulary for token ids; IGNORED for those that it lacks."""
        if self.ids is None:
            return tokens.long().masked_fill(tokens >= rows, IGNORED)
        found = torch.searchsorted(self.ids, tokens.to(self.ids.dtype)).clamp_(max=rows - 1)
        return found.masked_fill_(self.ids[found] != tokens, IGNORED)


class ChunkedLoss(torch.autograd.Function):
    """(weighted sum of the terms, sum of each term and, with a dense teacher, of the acceptance last)."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        positions: Positions,
        terms: Sequence[TermFunction],
        scales: Tensor,
        size: int,
    ) -> tuple[Tensor, Tensor]:
        dense = isinstance(positions.teacher, DenseTeacher)
        sums = torch.zeros(len(terms) + dense, dtype=scales.dtype, device=states.device)
        states_grad = torch.empty_like(states)
        weight_grad = torch.zeros_like(weight, dtype=scales.dtype)
        for span, chunk in positions.chunks(states, weight, size):
            slope = torch.zeros_like(chunk.log_q)
            values = [term(chunk, scale, slope).sum() for term, scale in zip(terms, scales, strict=True)]
            sums += torch.stack([*values, chunk.acceptance.sum()] if dense else values)
            slope.addcmul_(chunk.q, slope.sum(-1, keepdim=True), value=-1.0)  # by the logits: see TermFunction
            by_logits = slope.to(weight.dtype)
            states_grad[span] = by_logits @ weight
            weight_grad += by_logits.T @ states[span]
        ctx.save_for_backward(states_grad, weight_grad.to(weight.dtype))
        ctx.mark_non_differentiable(sums)
        return sums[: len(terms)] @ scales, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states_grad, weight_grad = ctx.saved_tensors
        return states_grad * grad, weight_grad * grad, None, None, None, None


def _log_law(states: Tensor, weight: Tensor) -> Tensor:
    """[n, vocabulary] log-probabilities, at least in float32."""
    logits = (states @ weight.T).to(torch.promote_types(weight.dtype, torch.float32))
    return logits.sub_(logits.logsumexp(dim=-1, keepdim=True))
