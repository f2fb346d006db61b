"""Logit bias and penalties: what a request changes about the model's logits before a token is drawn from them.

In vLLM's order: the bias first; then, on the biased logits, the repetition penalty (for tokens of prompt and output),
the frequency and the presence penalty (for tokens of the output). Drafted tokens are output to the positions after
them, so a verification sees at every position exactly what plain decoding would see there.

Shape suffixes: R rows of all texts, N rows of one text, V vocabulary, T tokens of one text, U distinct ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.types import SamplingParams

_LARGEST = torch.finfo(torch.float64).max
"""A tiny repetition penalty must not make a logit infinite: there is no law with that."""


@dataclass(frozen=True, slots=True)
class Context:
    """What comes before N = 1 + len(draft) rows of one text: row i follows `tokens` and the first i of `draft`.

    Example, prompt (1, 2), output (3, 4), draft (5,): tokens are (1, 2, 3, 4), prompt_length is 2; row 0 is about
    the token after 4, row 1 about the token after 5, and to row 1 the output is (3, 4, 5).
    """

    sampling: SamplingParams
    tokens: Sequence[int]
    prompt_length: int
    draft: Sequence[int] = ()

    @property
    def rows(self) -> int:
        return 1 + len(self.draft)


def adjust(logits_RV: Tensor, contexts: Sequence[Context]) -> Tensor:
    """Apply each text's bias and penalties to its rows.

    Args:
        logits_RV: the model's logits, the rows of the first context first.

    Returns:
        float64 [R, V]; `logits_RV` itself if no text asks for anything.
    """
    if not any(c.sampling.logit_bias or c.sampling.penalised for c in contexts):
        return logits_RV
    adjusted_RV = logits_RV.to(torch.float64, copy=True)
    start = 0
    for context in contexts:
        rows_NV = adjusted_RV[start : start + context.rows]
        _add_bias(rows_NV, context.sampling)
        if context.sampling.penalised:
            _penalise(rows_NV, context)
        start += context.rows
    return adjusted_RV


def _add_bias(rows_NV: Tensor, sampling: SamplingParams) -> None:
    """In place. An engine refuses ids beyond its vocabulary when the session opens; here they meet no logit."""
    bias = [(token, value) for token, value in sampling.logit_bias if token < rows_NV.shape[-1]]
    if not bias:
        return
    tokens_U = torch.tensor([token for token, _ in bias], device=rows_NV.device)
    values_U = torch.tensor([value for _, value in bias], dtype=torch.float64, device=rows_NV.device)
    rows_NV.index_add_(-1, tokens_U, values_U.expand(len(rows_NV), -1))


def _penalise(rows_NV: Tensor, context: Context) -> None:
    """In place, and only in the columns of tokens that occur in the text."""
    sampling = context.sampling
    tokens_U, text_NU, output_NU = _counts(context, rows_NV.shape[-1], rows_NV.device)
    logits_NU = rows_NV[:, tokens_U]
    repeated_NU = torch.where(
        logits_NU > 0, logits_NU / sampling.repetition_penalty, logits_NU * sampling.repetition_penalty
    ).clamp_max(_LARGEST)
    logits_NU = torch.where(text_NU > 0, repeated_NU, logits_NU)
    # Integers times a float would be float32.
    logits_NU -= sampling.frequency_penalty * output_NU.double()
    logits_NU -= sampling.presence_penalty * (output_NU > 0).double()
    rows_NV[:, tokens_U] = logits_NU


def _counts(context: Context, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct tokens [U], and how often the text, and the output alone, hold them before each row [N, U]."""
    known = len(context.tokens)
    # By way of an array: torch reads a list of thousands of numbers ten times slower.
    tokens = array("q", context.tokens)
    tokens.extend(context.draft)
    tokens_U, index_T = _distinct(torch.asarray(tokens, dtype=torch.int64, device=device), vocabulary)
    distinct = len(tokens_U)
    prompt_U = index_T[: context.prompt_length].bincount(minlength=distinct)
    output_U = index_T[context.prompt_length : known].bincount(minlength=distinct)
    drafted_NU = F.pad(F.one_hot(index_T[known:], distinct).cumsum(dim=0), (0, 0, 1, 0))
    output_NU = output_U + drafted_NU
    return tokens_U, prompt_U + output_NU, output_NU


def _distinct(tokens_T: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The distinct tokens [U], ascending, and the place of each token [T] among them."""
    if len(tokens_T) * 16 < vocabulary:
        return tokens_T.unique(return_inverse=True)
    # A long text is sorted more slowly than a vocabulary is looked through.
    occurs_V = torch.zeros(vocabulary, dtype=torch.bool, device=tokens_T.device).index_fill_(0, tokens_T, True)
    place_V = occurs_V.cumsum(dim=0) - 1
    return occurs_V.nonzero().squeeze(1), place_V[tokens_T]
