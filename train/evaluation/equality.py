"""Whether two texts of the same target may differ: only where rounding decides between its two likeliest tokens.

Kernels whose rounding depends on the shape of a batch move logits by an ulp or so, and a tie may then fall the other
way. Such a difference is excused, and counted; every other one is a defect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import torch
from transformers import PreTrainedModel

ROUNDING = 1e-3
"""Largest difference of two logits that rounding may turn round, in float32 on logits of some tens."""


class Equality(msgspec.Struct, frozen=True, kw_only=True):
    texts: int = 0
    ties: int = 0
    """Texts that differ from where the target's two likeliest tokens are as good as equally likely."""
    unequal: int = 0
    """Texts that differ otherwise."""

    @property
    def same(self) -> int:
        """Texts that do not differ at all."""
        return self.texts - self.ties - self.unequal

    @property
    def equal(self) -> bool:
        return self.unequal == 0


@torch.inference_mode()
def compare(model: PreTrainedModel, texts: Iterable[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> Equality:
    """Greedy texts as (prompt, one, other).

    Args:
        model: the target as transformers runs it: its logits at a difference decide.
    """
    found = {"texts": 0, "ties": 0, "unequal": 0}
    for prompt, one, other in texts:
        found["texts"] += 1
        if list(one) != list(other):
            found["ties" if _margin(model, prompt, one, other) < ROUNDING else "unequal"] += 1
    return Equality(**found)


def _margin(model: PreTrainedModel, prompt: Sequence[int], one: Sequence[int], other: Sequence[int]) -> float:
    """Between the tokens where the texts part; infinite if one text only ends before the other."""
    place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if place is None:
        return float("inf")
    tokens = torch.tensor([[*prompt, *one[:place]]], device=model.device)
    logits = model(input_ids=tokens, use_cache=False).logits[0, -1].float()
    # Both must be as likely as the likeliest, or one of them was never a choice.
    return float(logits.max() - torch.minimum(logits[one[place]], logits[other[place]]))
