"""The objective of a training run: terms, their weights at each step, and the sums that are logged."""

from __future__ import annotations

import torch
from torch import Tensor

from train.objectives.chunk import TermFunction
from train.objectives.chunked_loss import ChunkedLoss, Positions
from train.objectives.cross_entropy import cross_entropy
from train.objectives.forward_kl import forward_kl
from train.objectives.lk_hybrid import LKHybrid
from train.objectives.reverse_kl import reverse_kl
from train.objectives.settings import ObjectiveSettings, Term
from train.objectives.teacher import DenseTeacher, SparseTeacher
from train.objectives.total_variation import total_variation

CPU_CHUNK = 2**22
"""Logits of a chunk: 17 MB in float32, and some six tensors of that size exist at a time."""
GPU_CHUNK = 2**25
"""134 MB: smaller ones would leave a GPU waiting for the next kernel to be launched."""


class Objective:
    """A weighted sum of terms over N labelled positions.

    Args:
        settings: which terms, and their weights at each step.
        chunk_logits: about how many logits are computed at once; None: as many as suit the device.
    """

    def __init__(self, settings: ObjectiveSettings, *, chunk_logits: int | None = None) -> None:
        self._settings = settings
        self._chunk_logits = chunk_logits
        functions: dict[Term, TermFunction] = {
            "ce": cross_entropy,
            "forward_kl": forward_kl,
            "reverse_kl": reverse_kl,
            "tv": total_variation,
            "lk": LKHybrid(settings.lk_eta),
        }
        self._terms = [functions[name] for name in settings.names]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sums that a call gives: the terms', and the expected acceptance's if the teacher runs along."""
        return (*self._settings.names, *(["acceptance"] if self._settings.teacher == "online" else []))

    def __call__(
        self,
        states: Tensor,
        weight: Tensor,
        tokens: Tensor,
        teacher: DenseTeacher | SparseTeacher | None,
        step: int,
        steps: int,
        *,
        ids: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum over the positions, and by name each term's own sum, unweighted and without gradient.

        Position i has the final state `states[i]` [N, width] and the label `tokens[i]` [N]; `weight` [V, width] is
        the output projection, whose row r stands for token `ids[r]` ([V] ascending), or r. What becomes of tokens
        that it lacks is said by each term. `step` counts from 0. Sums are float32 (float64 for float64 models); the
        first is differentiable by `states` and `weight`.
        """
        exact = torch.promote_types(weight.dtype, torch.float32)
        weights = self._settings.weights(step, steps)
        scales = torch.tensor([weights[name] for name in self._settings.names], dtype=exact, device=states.device)
        logits = self._chunk_logits or (CPU_CHUNK if states.device.type == "cpu" else GPU_CHUNK)
        size = max(1, logits // _widest(weight, teacher))
        positions = Positions(tokens, teacher, ids)
        loss, sums = ChunkedLoss.apply(states, weight, positions, self._terms, scales, size)
        return loss, dict(zip(self.names, sums, strict=True))


def _widest(weight: Tensor, teacher: DenseTeacher | SparseTeacher | None) -> int:
    return max(len(weight), len(teacher.weight)) if isinstance(teacher, DenseTeacher) else len(weight)
