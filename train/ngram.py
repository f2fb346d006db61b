"""N-gram models from training documents: counted, smoothed, and pruned to a size; see `common.ngram_model`.

Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999, "An empirical study of smoothing
techniques for language modeling"): a context's law is discounted counts, and what that leaves goes to the context one
token shorter, whose counts are of distinct longer contexts. A law, and not a table of likeliest tokens, because
drafters draw with the target's noise: the closer the law, the more draws agree.

Notation: an n-gram is a context and a continuation; E n-grams of one context length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from common.models import load_config, load_tokenizer
from common.ngram_model import NOTHING, NgramConfig, NgramModel, hash_contexts
from train.packing import Document
from train.shapes import NgramSettings

_CONTEXT_BYTES = 16
"""Of a context in the tables: key, backoff, start."""
_ENTRY_BYTES = 6
"""Of a continuation: token, share."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Level:
    """The E distinct n-grams of one context length. All arrays are [E]."""

    contexts: Integers
    """Keys of the contexts; ascending."""
    tokens: Integers
    counts: Integers
    """What the law is made of: occurrences for the longest contexts, distinct longer n-grams for the others."""
    occurrences: Integers


def save_ngram_drafter(
    folder: Path, documents: Iterable[Document], settings: NgramSettings, target: str | Path
) -> NgramModel:
    """Count `documents` and write a drafter for `target` to `folder`, as a Hugging Face-like folder."""
    config, tokenizer = load_config(target).get_text_config(), load_tokenizer(target)
    model = count_ngrams(
        documents,
        settings,
        NgramConfig(
            order=settings.order,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    tokenizer.save_pretrained(folder)
    return model


def count_ngrams(documents: Iterable[Document], settings: NgramSettings, config: NgramConfig) -> NgramModel:
    """The model of the tokens that have a loss. Raises ValueError if there are none."""
    text, places = _read(documents, padding=config.order - 1)
    levels, shorter = _levels(text, places, config.order - 1)
    discounted = [_discount(level) for level in levels]
    law, unigram = _unigram(levels[0], *discounted[0], config.vocab_size)
    entries = []
    for level, (shares, backoff), parents in zip(levels[1:], discounted[1:], shorter, strict=True):
        lower = law[parents]
        law = shares + backoff * lower
        entries.append((level.contexts, level.tokens, shares, level.occurrences * (law - lower)))
    contexts, tokens, shares, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    kept = _most_useful(contexts, values, int(settings.max_megabytes * 1e6))
    return NgramModel(config, _tables(contexts[kept], tokens[kept], shares[kept]) | {"unigram": unigram})


def _read(documents: Iterable[Document], padding: int) -> tuple[Integers, Integers]:
    """All documents in a row, `padding` NOTHINGs before each, and the places of the tokens that have a loss."""
    texts, places = [], []
    start = 0
    for document in documents:
        texts.append(np.array([NOTHING] * padding + document.tokens))
        places.append(np.arange(start + padding + max(1, document.loss_from), start + len(texts[-1])))
        start += len(texts[-1])
    if not sum(map(len, places)):
        raise ValueError("no token has a loss in any document: there is nothing to count")
    return np.concatenate(texts), np.concatenate(places)


def _levels(text: Integers, places: Integers, longest: int) -> tuple[list[_Level], list[Integers]]:
    """By context length, 0 first; and for each n-gram of levels 1 … the index of the one without its first token."""
    latest_first = torch.from_numpy(text[places[:, None] - 1 - np.arange(longest)])
    hashes = np.concatenate([np.zeros((len(places), 1), np.int64), hash_contexts(latest_first).numpy()], axis=1)
    rows, occurrences = np.arange(len(places)), np.ones(len(places), np.int64)
    levels: list[_Level] = []
    shorter: list[Integers] = []
    for length in range(longest, -1, -1):
        contexts, tokens = hashes[rows, length], text[places[rows]]
        order = np.lexsort((tokens, contexts))
        firsts = _firsts(contexts[order], tokens[order])
        groups = np.empty_like(order)
        groups[order] = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(order)))
        shorter.append(groups)
        occurrences = np.add.reduceat(occurrences[order], firsts)
        counts = occurrences if length == longest else np.diff(firsts, append=len(order))
        rows = rows[order[firsts]]
        levels.append(_Level(contexts[order][firsts], tokens[order][firsts], counts, occurrences))
    return levels[::-1], shorter[:0:-1]


def _firsts(*sorted_columns: Integers) -> Integers:
    """Where a new combination of values begins."""
    changes = np.any([np.diff(column) != 0 for column in sorted_columns], axis=0)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _discount(level: _Level) -> tuple[Floats, Floats]:
    """Of each n-gram: its own share of its context's law, and the share that is left to the shorter context."""
    firsts = _firsts(level.contexts)
    sizes = np.diff(firsts, append=len(level.contexts))
    totals = np.repeat(np.add.reduceat(level.counts, firsts), sizes)
    once, twice = (int((level.counts == count).sum()) for count in (1, 2))
    # Ney, Essen and Kneser (1994); a text too small to have both gets a middling one.
    discount = once / (once + 2 * twice) if once and twice else 0.5
    return (level.counts - discount) / totals, discount * np.repeat(sizes, sizes) / totals


def _unigram(level: _Level, shares: Floats, backoff: Floats, vocabulary: int) -> tuple[Floats, torch.Tensor]:
    """The law of the tokens that were seen [E], and of all [V]: what the discount leaves is spread evenly."""
    law = np.full(vocabulary, backoff[0] / vocabulary)
    law[level.tokens] += shares
    return law[level.tokens], torch.from_numpy(law).float()


def _most_useful(contexts: Integers, values: Floats, max_bytes: int) -> Integers:
    """Indices of the n-grams to keep, ascending: those that gain most, as many as fit.

    The gain of an n-gram is by how much the probability of its continuation is higher than by the shorter context, at
    each of its occurrences: of the overlap with the target's law, which is what is accepted. (Seymore and
    Rosenfeld 1996, "Scalable backoff language models", weigh the difference of logarithms.)
    """
    order = np.argsort(-values, kind="stable")
    cost = np.full(len(order), _ENTRY_BYTES)
    cost[np.unique(contexts[order], return_index=True)[1]] += _CONTEXT_BYTES
    return np.sort(order[np.cumsum(cost) <= max_bytes])


def _tables(contexts: Integers, tokens: Integers, shares: Floats) -> dict[str, torch.Tensor]:
    order = np.lexsort((tokens, contexts))
    firsts = _firsts(contexts[order]) if len(order) else order
    rounded = shares[order].astype(np.float16)
    # By context, what the kept ones leave: so the law sums to 1 whatever was pruned.
    kept = np.add.reduceat(rounded.astype(np.float64), firsts) if len(order) else rounded
    return {
        "keys": torch.from_numpy(contexts[order][firsts]),
        "backoff": torch.from_numpy((1.0 - kept).clip(min=0.0).astype(np.float32)),
        "starts": torch.from_numpy(np.append(firsts, len(order)).astype(np.int32)),
        "tokens": torch.from_numpy(tokens[order].astype(np.int32)),
        "shares": torch.from_numpy(rounded),
    }
