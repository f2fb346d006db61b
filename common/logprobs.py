"""Log-probabilities for those who ask: of each token of a text, and of the likeliest ones at its position.

They are the model's own, as in vLLM's default: before bias, penalties, temperature and truncation.

Shape suffixes: R rows (one per token), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from common.types import TokenLogprob

_ROWS = 64
"""Worked on at once: float64 [64, 150,000] is 77 MB, and whole chunks of prompts may be asked for."""


def report(
    logits: Sequence[Tensor], outputs: Sequence[Sequence[int]], counts: Sequence[int | None]
) -> list[tuple[TokenLogprob, ...]]:
    """One `TokenLogprob` for each token that was added to each text.

    Args:
        logits: per text, the model's raw logits [at least as many rows as tokens, V]; row i is about the i-th of them.
        outputs: per text, the tokens that were added: output, or a part of its prompt.
        counts: per text, how many of the likeliest tokens to list; None reports nothing.

    Returns:
        Per text, as many as tokens were added, or () where nothing is to be reported.
    """
    if all(count is None for count in counts):
        return [()] * len(outputs)
    asked = [i for i, count in enumerate(counts) if count is not None]
    rows_RV = torch.cat([logits[i][: len(outputs[i])] for i in asked])
    wanted = [(token, counts[i] or 0) for i in asked for token in outputs[i]]
    starts = range(0, len(wanted), _ROWS)
    reported = chain.from_iterable(_report(rows_RV[i : i + _ROWS], wanted[i : i + _ROWS]) for i in starts)
    return [
        () if count is None else tuple(next(reported) for _ in output)
        for output, count in zip(outputs, counts, strict=True)
    ]


def _report(logits_RV: Tensor, wanted: Sequence[tuple[int, int]]) -> list[TokenLogprob]:
    """`wanted` is per row the token and the number of likeliest ones to list."""
    logprobs_RV = logits_RV.log_softmax(dim=-1, dtype=torch.float64)
    tokens_R1 = torch.tensor([[token] for token, _ in wanted], device=logits_RV.device)
    chosen = logprobs_RV.gather(-1, tokens_R1).flatten().tolist()
    likeliest = _likeliest(logprobs_RV, max(count for _, count in wanted))
    return [
        TokenLogprob(token, logprob, top[:count])
        for (token, count), logprob, top in zip(wanted, chosen, likeliest, strict=True)
    ]


def _likeliest(logprobs_RV: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """Per row at least `count` (token id, log-probability) pairs, likeliest first, of equal ones the lower id first."""
    if count == 0:
        return [()] * len(logprobs_RV)
    # topk breaks ties as it likes: it only says how likely is likely enough.
    least_R1 = logprobs_RV.topk(min(count, logprobs_RV.shape[-1])).values[:, -1:]
    rows, tokens = (logprobs_RV >= least_R1).nonzero(as_tuple=True)
    candidates: list[list[tuple[int, float]]] = [[] for _ in logprobs_RV]
    values = logprobs_RV[rows, tokens].tolist()
    for row, token, value in zip(rows.tolist(), tokens.tolist(), values, strict=True):
        candidates[row].append((token, value))
    # Tokens come in ascending order and sorting is stable, which settles the ties.
    return [tuple(sorted(pairs, key=lambda pair: -pair[1])) for pairs in candidates]
