"""From logits to a token: first a distribution, then one draw with keyed noise.

Temperature 0 is the one-hot distribution of the likeliest token, so greedy decoding is no special case of any rule
built on top. The draw is the Gumbel-max trick: argmax(log p + g) with g standard Gumbel is a sample of p. The noise
g is a pure function of (seed, position, token id), so whoever draws at that position with that seed, the target or
a drafter, today or on a replay elsewhere, uses the same noise.

What a request changes about the logits before that, bias and penalties, is in `penalties`.

Shape suffixes: R rows (one per position to draw), S some of them, V vocabulary, C tokens of it, M the likeliest,
N tokens drawn of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.types import SamplingParams

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_EXCLUDED = float("-inf")
_FEW = 256
"""Tokens among which the end of top-p is looked for first."""
_IN_CACHE = 2**16
"""Numbers that a CPU draws with at a time: the intermediate ones then stay in its cache."""
_ROUNDING = 1e-9
"""Far more than any rounding in a sum of probabilities."""


def draw(logits_RV: Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> Tensor:
    """Draw one token per row.

    Args:
        logits_RV: the model's logits, after `penalties.adjust`.
        params: how to draw, one per row.
        positions: index in the whole sequence of the token drawn by each row; keys the noise.

    Returns:
        Token ids, int64 [R].
    """
    return _draw(logits_RV, params, positions, 1)[:, 0]


def draw_two(logits_RV: Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> Tensor:
    """As `draw`, and with each token the runner-up: what the same noise would have drawn if the token did not exist.

    Where another model with nearly this law draws another token, it is mostly this one.

    Returns:
        Token ids, int64 [R, 2]; the runner-up is the token itself where nothing else could be drawn.
    """
    return _draw(logits_RV, params, positions, 2)


def _draw(logits_RV: Tensor, params: Sequence[SamplingParams], positions: Sequence[int], count: int) -> Tensor:
    """The `count` (1 or 2) tokens [R, count] that come out first."""
    # Noise costs more than all else here: only rows that need it get it, and of those only tokens that can be drawn.
    # These are few where the law is truncated, if the other rows are kept apart.
    alike: dict[tuple[bool, bool], list[int]] = {}
    for row, p in enumerate(params):
        alike.setdefault((p.greedy, p.truncated), []).append(row)
    if len(alike) == 1:
        return _draw_alike(logits_RV, params, positions, count)
    drawn_RN = torch.empty(len(params), count, dtype=torch.int64, device=logits_RV.device)
    for rows in alike.values():
        rows_S = torch.tensor(rows, device=logits_RV.device)
        logits_SV = logits_RV.index_select(0, rows_S)
        alike_params, alike_positions = [params[row] for row in rows], [positions[row] for row in rows]
        drawn_RN[rows_S] = _draw_alike(logits_SV, alike_params, alike_positions, count)
    return drawn_RN


def _draw_alike(logits_SV: Tensor, params: Sequence[SamplingParams], positions: Sequence[int], count: int) -> Tensor:
    """For rows that are all greedy or all sampled."""
    if params[0].greedy:
        return _highest(logits_SV, count)
    rows = max(1, _IN_CACHE // logits_SV.shape[1]) if logits_SV.device.type == "cpu" else len(params)
    blocks = [slice(start, start + rows) for start in range(0, len(params), rows)]
    return torch.cat([_draw_sampled(logits_SV[b], params[b], positions[b], count) for b in blocks])


def _draw_sampled(logits_SV: Tensor, params: Sequence[SamplingParams], positions: Sequence[int], count: int) -> Tensor:
    law_SV = log_law(logits_SV, params)
    seeds_S = torch.tensor([p.seed for p in params], device=law_SV.device)
    positions_S = torch.tensor(positions, device=law_SV.device)
    if not params[0].truncated and bool(law_SV.min() > _EXCLUDED):
        return _highest(gumbel_noise(seeds_S, positions_S, law_SV.shape[1]).add_(law_SV), count)
    # A model that breaks down to NaN excludes nothing: whatever is drawn then, the texts beside it go on.
    tokens_C = (law_SV != _EXCLUDED).any(dim=0).nonzero().squeeze(1)
    noise_SC = _gumbel_noise_of(tokens_C, seeds_S, positions_S)
    return tokens_C[_highest(law_SV.index_select(1, tokens_C) + noise_SC, count)]


def _highest(scores_SC: Tensor, count: int) -> Tensor:
    """Index [S, count] of the highest one or two, of equal ones the first."""
    # As by `argmax`, which takes three times as long; `topk` promises no order among equals.
    first_S1 = scores_SC.max(dim=-1, keepdim=True).indices
    if count == 1:
        return first_S1
    return torch.cat([first_S1, scores_SC.scatter(-1, first_S1, _EXCLUDED).max(dim=-1, keepdim=True).indices], dim=-1)


def law(logits_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """The probabilities [R, V] that `draw` samples from."""
    return log_law(logits_RV, params).softmax(dim=-1)


def log_law(logits_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Unnormalised log-probabilities [R, V], float64, the likeliest at 0; -inf is excluded.

    Temperature, then min-p, then top-k, then top-p, each among what the one before has left: vLLM's order.
    """
    vocabulary = logits_RV.shape[-1]
    law_RV = _heated(logits_RV.double(), params)
    law_RV = _where_asked(_min_p, law_RV, [p.min_p or None for p in params])
    law_RV = _where_asked(_top_k, law_RV, [1 if p.greedy else min(p.top_k, vocabulary) or None for p in params])
    return _where_asked(_top_p, law_RV, [p.top_p if p.top_p < 1.0 else None for p in params])


def _heated(logits_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Logits over temperature. At a tiny one all but the likeliest overflow to -inf, which is the law's limit: so what
    is divided is how far they are below it, for logits as they are would overflow together."""
    below_RV = logits_RV - logits_RV.amax(dim=-1, keepdim=True)
    return below_RV.div_(_column([p.temperature or 1.0 for p in params], logits_RV.device))


def _where_asked(
    truncate: Callable[[Tensor, Tensor], Tensor], law_RV: Tensor, limits: Sequence[float | None]
) -> Tensor:
    """Truncate the rows that have a limit, and no others."""
    asked = [(row, limit) for row, limit in enumerate(limits) if limit is not None]
    if not asked:
        return law_RV
    limits_S1 = _column([limit for _, limit in asked], law_RV.device)
    if len(asked) == len(limits):
        return truncate(law_RV, limits_S1)
    rows_S = torch.tensor([row for row, _ in asked], device=law_RV.device)
    return law_RV.index_copy(0, rows_S, truncate(law_RV.index_select(0, rows_S), limits_S1))


def _min_p(law_SV: Tensor, fraction_S1: Tensor) -> Tensor:
    """Exclude tokens with p < fraction * max p (Nguyen et al., arXiv 2407.01082)."""
    # In logarithms, where the likeliest is at 0.
    return law_SV.masked_fill(law_SV < fraction_S1.log(), _EXCLUDED)


def _top_k(law_SV: Tensor, k_S1: Tensor) -> Tensor:
    """Exclude all but the k likeliest tokens."""
    return _keep(law_SV, *_end(law_SV.topk(int(k_S1.max())).values, k_S1.long()))


def _top_p(law_SV: Tensor, p_S1: Tensor) -> Tensor:
    """Exclude all but the smallest set of the likeliest tokens whose probability reaches p."""
    return _keep(law_SV, *_nucleus(law_SV, p_S1, _FEW))


def _nucleus(law_SV: Tensor, p_S1: Tensor, among: int) -> tuple[Tensor, Tensor]:
    """The `_end` of the smallest set of tokens whose probability reaches p.

    As a rule it is among the few likeliest tokens, and no more need be sorted. Where it is not, or where rounding would
    decide, more are, in the end all: so what stays is what sorting all would have kept, whichever way it was found.
    """
    total_S1 = law_SV.logsumexp(dim=-1, keepdim=True)
    fewest = float((p_S1 * total_S1.exp()).min())  # the likeliest token has the probability exp(0 - total)
    while among < fewest:
        among *= 8
    if 4 * among > law_SV.shape[-1]:  # to select so many takes as long
        sorted_SV = law_SV.sort(dim=-1, descending=True).values
        return _end(sorted_SV, _count(_mass_before(sorted_SV.softmax(dim=-1)), p_S1))
    likeliest_SM = law_SV.topk(among).values
    before_SM = _mass_before((likeliest_SM - total_S1).exp())
    least_S1, room_S1 = _end(likeliest_SM, _count(before_SM, p_S1))
    certain_SM = (before_SM[:, -1:] > p_S1) & ((before_SM - p_S1).abs() > _ROUNDING)
    others_S = (~certain_SM.all(dim=-1)).nonzero().squeeze(1)
    if len(others_S):
        least_S1[others_S], room_S1[others_S] = _nucleus(law_SV[others_S], p_S1[others_S], 8 * among)
    return least_S1, room_S1


def _mass_before(probs_SM: Tensor) -> Tensor:
    """The probability of all likelier tokens together."""
    return probs_SM.cumsum(dim=-1) - probs_SM


def _count(before_SM: Tensor, p_S1: Tensor) -> Tensor:
    return (before_SM < p_S1).sum(dim=-1, keepdim=True).clamp_min(1)


def _end(sorted_SM: Tensor, count_S1: Tensor) -> tuple[Tensor, Tensor]:
    """Of the `count` likeliest tokens, given in descending order: the least value, and how many have just that."""
    least_S1 = sorted_SM.gather(-1, count_S1 - 1)
    return least_S1, count_S1 - (sorted_SM > least_S1).sum(dim=-1, keepdim=True)


def _keep(law_SV: Tensor, least_S1: Tensor, room_S1: Tensor) -> Tensor:
    """Exclude what is below `least`, and of the tokens at it all but the first `room`, whatever the batch."""
    at_least_SV = law_SV == least_S1
    outside_SV = (law_SV < least_S1) | (at_least_SV & (at_least_SV.cumsum(dim=-1, dtype=torch.int32) > room_S1))
    return law_SV.masked_fill(outside_SV, _EXCLUDED)


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
    # In place from here on: memory for R x V numbers costs as much as computing with them.
    bits_RC = _shift_right(_mix(row_keys_R1 + _GOLDEN * (tokens_C + 1)), 11)  # the upper 53 bits
    uniforms_RC = bits_RC.double().add_(0.5).mul_(2.0**-53)
    return uniforms_RC.log_().neg_().log_().neg_()


def _mix(state: Tensor) -> Tensor:
    state = _shift_right(state, 30).bitwise_xor_(state).mul_(_MIX_1)
    state = _shift_right(state, 27).bitwise_xor_(state).mul_(_MIX_2)
    return _shift_right(state, 31).bitwise_xor_(state)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's is arithmetic on signed integers."""
    return (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)
