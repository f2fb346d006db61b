"""Which tokens a drafter of one language needs: those that its training documents are made of."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import msgspec
import torch
from torch import Tensor

from train.packing import Document
from train.shapes import VocabularySettings


class VocabularyReport(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    tokens: int
    """Tokens with a loss that were counted."""
    coverage: float
    """Share of them that is in the vocabulary: no draft can be accepted more often than that."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    ids: Tensor
    """int64 [V'], ascending."""
    report: VocabularyReport


def choose_vocabulary(
    documents: Iterable[Document], settings: VocabularySettings, *, stop_token_ids: frozenset[int]
) -> Vocabulary:
    """The most frequent of the tokens that have a loss, of equally frequent ones the lowest ids; those that end first.

    Tokens that never occur are not chosen, whatever the size. Raises ValueError if no token has a loss.
    """
    counts: Counter[int] = Counter()
    for document in documents:
        counts.update(document.tokens[max(1, document.loss_from) :])
    total = counts.total()
    if not total:
        raise ValueError("no token has a loss in any document: there is no vocabulary to choose")
    # The ends come first: without them a drafter would never draft one.
    ranked = sorted(
        counts.keys() | stop_token_ids, key=lambda token: (token not in stop_token_ids, -counts[token], token)
    )
    covered = list(accumulate(counts[token] for token in ranked))
    size = settings.size or max(len(stop_token_ids), 1 + bisect_left(covered, (settings.coverage or 0.0) * total))
    chosen = sorted(ranked[:size])
    coverage = covered[len(chosen) - 1] / total
    return Vocabulary(torch.tensor(chosen), VocabularyReport(size=len(chosen), tokens=total, coverage=coverage))
