"""The accept rules: how much of a draft the target keeps, and which token follows. Pure functions.

Notation: p is the target's law, q the drafter's, both after temperature, top-k and top-p; K drafted tokens,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Acceptance(NamedTuple):
    accepted: int
    """Length of the accepted prefix of the draft."""
    next_token: int
    """The recovered token if a drafted one was refused, the bonus token if all were accepted."""


def accept_coupled(draft: Sequence[int], draws: Sequence[int]) -> Acceptance:
    """Accept a drafted token iff it equals the target's own draw at its position.

    Args:
        draft: K drafted tokens.
        draws: K + 1 tokens; `draws[i]` is drawn from p given the first i drafted tokens.

    The output is always the target's own sample, whatever the drafter did: with keyed noise (`sampling.draw`) the
    text is that of plain decoding, token for token. Where the drafter draws with the same noise, a token is
    accepted with probability at least (1 - TV) / (1 + TV), TV the total variation of p and q
    (Daliri, Musco and Suresh, "Coupling without communication and drafter-invariant speculative decoding",
    arXiv 2408.07978).

    Example: ``accept_coupled([5, 7], [5, 9, 2]) == (1, 9)``.
    """
    assert len(draws) == len(draft) + 1
    accepted = 0
    while accepted < len(draft) and draft[accepted] == draws[accepted]:
        accepted += 1
    return Acceptance(accepted, draws[accepted])


def accept_rejection(
    p_KV: Tensor, q_KV: Tensor, draft: Sequence[int], uniforms_K: Tensor, noise_V: Tensor
) -> Acceptance:
    """Accept drafted token x with probability min(1, p(x) / q(x)); at the first refusal draw from (p - q)+.

    Args:
        p_KV: [K + 1, V] probabilities of the target given each prefix of the draft.
        q_KV: [K, V] the very probabilities that the draft was sampled from (truncate first, then sample).
        draft: K drafted tokens.
        uniforms_K: [K] uniform on [0, 1), independent of whatever drew the draft.
        noise_V: [V] standard Gumbel noise for the token that follows, independent of both: noise shared with the
            draft would bias the output under this rule.

    The output follows p (Leviathan, Kalman and Matias, arXiv 2211.17192, theorem 3.5; Chen et al., arXiv 2302.01318).
    """
    count = len(draft)
    assert p_KV.shape[0] == count + 1 and q_KV.shape[0] == count
    steps, tokens = torch.arange(count), torch.as_tensor(draft, dtype=torch.long)
    # u < p/q written without the division, so that q = 0 needs no special case.
    passes_K = uniforms_K * q_KV[steps, tokens] < p_KV[steps, tokens]
    accepted = int(passes_K.long().cumprod(0).sum())
    follow_V = p_KV[accepted]
    if accepted < count:
        follow_V = (follow_V - q_KV[accepted]).clamp_min(0.0)
    return Acceptance(accepted, int((follow_V.log() + noise_V).argmax()))
