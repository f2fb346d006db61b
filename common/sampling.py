"""From logits to a token: first a distribution, then one draw with keyed noise.

Temperature 0 is the one-hot distribution of the likeliest token, so greedy decoding is no special case of any rule
built on top. The draw is the Gumbel-max trick: argmax(log p + g) with g standard Gumbel is a sample of p. The noise
g is a pure function of (seed, position, token id), so whoever draws at that position with that seed, the target or
a drafter, today or on a replay elsewhere, uses the same noise.

What a request changes about the logits before that, bias and penalties, is in `penalties`.

Shape suffixes: R rows (one per position to draw), S rows that are not greedy, V vocabulary, C tokens of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.types import SamplingParams

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_EXCLUDED = float("-inf")


def draw(logits_RV: Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> Tensor:
    """Draw one token per row.

    Args:
        logits_RV: the model's logits, after `penalties.adjust`.
        params: how to draw, one per row.
        positions: index in the whole sequence of the token drawn by each row; keys the noise.

    Returns:
        Token ids, int64 [R].
    """
    drawn_R = logits_RV.argmax(dim=-1)
    sampled = [row for row, p in enumerate(params) if not p.greedy]
    if not sampled:
        return drawn_R
    device = logits_RV.device
    rows_S = torch.tensor(sampled, device=device)
    law_SV = log_law(logits_RV.index_select(0, rows_S), [params[row] for row in sampled])
    # Noise costs more than all else here: only rows that need it get it, and of those only tokens that can be drawn.
    # (A model that breaks down to NaN excludes nothing: whatever is drawn then, the other texts go on.)
    tokens_C = (law_SV != _EXCLUDED).any(dim=0).nonzero().squeeze(1)
    seeds_S = torch.tensor([params[row].seed for row in sampled], device=device)
    positions_S = torch.tensor([positions[row] for row in sampled], device=device)
    noise_SC = _gumbel_noise_of(tokens_C, seeds_S, positions_S)
    drawn_S = tokens_C[(law_SV.index_select(1, tokens_C) + noise_SC).argmax(dim=-1)]
    return drawn_R.index_copy(0, rows_S, drawn_S)


def law(logits_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """The probabilities [R, V] that `draw` samples from."""
    return log_law(logits_RV, params).softmax(dim=-1)


def log_law(logits_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Unnormalised log-probabilities [R, V], float64; -inf is excluded.

    Temperature, then min-p, then top-k, then top-p, each among what the one before has left: vLLM's order.
    """
    greedy_R = torch.tensor([p.greedy for p in params], device=logits_RV.device)
    scaled_RV = _scaled(logits_RV.double(), params)
    if any(p.min_p for p in params):
        scaled_RV = _drop_unlikely(scaled_RV, params)
    if any(p.top_k or p.top_p < 1.0 for p in params):
        scaled_RV = _truncate(scaled_RV, params)
    if not greedy_R.any():
        return scaled_RV
    best_R1 = logits_RV.argmax(dim=-1, keepdim=True)
    one_hot_RV = torch.full_like(scaled_RV, _EXCLUDED).scatter(-1, best_R1, 0.0)
    return torch.where(greedy_R.unsqueeze(-1), one_hot_RV, scaled_RV)


def _scaled(logits_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """The likeliest token at 0, the others so far below it that at a tiny temperature they overflow to -inf.

    Which is the limit of the law; logits that are divided themselves overflow to -inf or inf all together.
    """
    least_negative_RV = logits_RV - logits_RV.amax(dim=-1, keepdim=True)
    return least_negative_RV / _column([p.temperature or 1.0 for p in params], logits_RV.device)


def _drop_unlikely(scaled_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Exclude tokens with p < min_p * max p (Nguyen et al., arXiv 2407.01082); the likeliest always stays."""
    # In logarithms, where the likeliest is at 0.
    least_R1 = _column([p.min_p for p in params], scaled_RV.device).log()
    return scaled_RV.masked_fill(scaled_RV < least_R1, _EXCLUDED)


def _truncate(scaled_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Exclude what top-k, and then top-p among the rest, leave out; the likeliest token always stays."""
    vocabulary = scaled_RV.shape[-1]
    k_R1 = torch.tensor([[min(p.top_k or vocabulary, vocabulary)] for p in params], device=scaled_RV.device)
    p_R1 = _column([p.top_p for p in params], scaled_RV.device)
    # Stable, so that of equal logits always the same tokens stay, whatever the batch.
    sorted_RV, order_RV = scaled_RV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(vocabulary, device=scaled_RV.device)
    sorted_RV = sorted_RV.masked_fill(rank_V >= k_R1, _EXCLUDED)
    probs_RV = sorted_RV.softmax(dim=-1)
    before_RV = probs_RV.cumsum(dim=-1) - probs_RV
    # top_p = 1 keeps everything: rounding in the sum must not cut the tail.
    outside_RV = (before_RV >= p_R1) & (p_R1 < 1.0)
    outside_RV[:, 0] = False
    sorted_RV = sorted_RV.masked_fill(outside_RV, _EXCLUDED)
    return torch.empty_like(scaled_RV).scatter(-1, order_RV, sorted_RV)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device).unsqueeze(-1)


def gumbel_noise(seeds_R: Tensor, positions_R: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise [R, V], float64, a pure function of (seed, position, token id).

    A counter-based generator: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014), seeded per row by mixing seed and position, and counting over token ids. int64 arithmetic wraps,
    which is what the generator asks for.
    """
    return _gumbel_noise_of(torch.arange(vocabulary, device=seeds_R.device), seeds_R, positions_R)


def _gumbel_noise_of(tokens_C: Tensor, seeds_R: Tensor, positions_R: Tensor) -> Tensor:
    """The noise [R, C] of these token ids only."""
    row_keys_R1 = _mix(_mix(seeds_R) + _GOLDEN * (positions_R + 1)).unsqueeze(-1)
    bits_RC = _shift_right(_mix(row_keys_R1 + _GOLDEN * (tokens_C + 1)), 11)  # the upper 53 bits
    uniforms_RC = (bits_RC.double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniforms_RC))


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * _MIX_1
    state = (state ^ _shift_right(state, 27)) * _MIX_2
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's is arithmetic on signed integers."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
