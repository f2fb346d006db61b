"""Drawing for a step: the tokens that all its sessions draw, each in its own way, in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from common.engine.session import Session
from common.penalties import Context, adjust
from common.sampling import draw, draw_two
from common.types import SamplingParams


def draw_for(sessions: Sequence[Session], drafts: Sequence[Sequence[int]], logits: Sequence[Tensor]) -> list[list[int]]:
    """Draw the token after each session's tokens, and those after each prefix of its draft.

    Args:
        drafts: per session, K tokens that were run on top of its own.
        logits: per session, the model's logits [K + 1, V].

    Returns:
        Per session, K + 1 token ids.
    """
    return _draw_for(draw, sessions, drafts, logits)


def draw_two_for(
    sessions: Sequence[Session], drafts: Sequence[Sequence[int]], logits: Sequence[Tensor]
) -> list[list[tuple[int, int]]]:
    """As `draw_for`, each token with its runner-up."""
    return _draw_for(draw_two, sessions, drafts, logits)


def _draw_for(
    rule: Callable[[Tensor, Sequence[SamplingParams], Sequence[int]], Tensor],
    sessions: Sequence[Session],
    drafts: Sequence[Sequence[int]],
    logits: Sequence[Tensor],
) -> list[list[Any]]:
    contexts = [
        Context(s.sampling, s.tokens, s.prompt_length, draft) for s, draft in zip(sessions, drafts, strict=True)
    ]
    adjusted_RV = adjust(torch.cat(list(logits)), contexts)
    rows = [(context, i) for context in contexts for i in range(context.rows)]
    drawn_R = rule(adjusted_RV, [c.sampling for c, _ in rows], [len(c.tokens) + i for c, i in rows])
    drawn = iter(drawn_R.tolist())  # one copy from the device for all of them
    return [list(islice(drawn, context.rows)) for context in contexts]
