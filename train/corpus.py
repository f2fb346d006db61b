"""The text of one language: read, cleaned, split, and free of what it will be tested on."""

from __future__ import annotations

import msgspec

from common.settings import Settings
from train.cleaning import CleaningReport, choose, clean, decontaminate, split
from train.pair import CorpusError, Pair
from train.sources import HubSource, read_pairs, read_sources

__all__ = ["Corpus", "CorpusError", "CorpusSettings", "HubSource", "Pair", "load_corpus", "read_pairs"]


class CorpusSettings(Settings, frozen=True, kw_only=True):
    """Where a language's text is, and how much of it to use.

    A source is a path or URI, in which ``{language}`` and ``{data}`` are filled in and ``*`` matches any
    file name, or a HubSource. Without `valid` or `test`, that share of the English sentences is taken from `train`.
    """

    train: tuple[str | HubSource, ...]
    valid: tuple[str | HubSource, ...] = ()
    test: tuple[str | HubSource, ...] = ()
    valid_share: float = 0.02
    test_share: float = 0.02
    max_pairs: int | None = None
    """Most training pairs to keep; which ones is decided by a hash of their English side."""
    min_pairs: int = 1
    """Fewer training pairs than this after cleaning are an error."""
    max_characters: int = 1000
    """A pair with a longer side is dropped."""
    seed: int = 0


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """One language's text. No sentence of `valid` or `test`, in either language, occurs in `train`."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    report: CleaningReport
    """Of the training text."""
    contaminated: int
    """Training pairs dropped because a side of them occurs in `valid` or `test`."""


def load_corpus(settings: CorpusSettings, language: str, data: str = "") -> Corpus:
    """Read, clean, split and decontaminate the text of `language`; `data` fills ``{data}`` in the sources.

    Raises CorpusError naming the file (and line), or the language if fewer than `min_pairs` are left.
    """
    train, report = clean(read_sources(settings.train, language, data), settings.max_characters)
    valid, _ = clean(read_sources(settings.valid, language, data), settings.max_characters)
    test, _ = clean(read_sources(settings.test, language, data), settings.max_characters)
    parts = split(
        train,
        valid=0.0 if settings.valid else settings.valid_share,
        test=0.0 if settings.test else settings.test_share,
        seed=settings.seed,
    )
    valid, test = valid or parts.valid, test or parts.test
    kept = decontaminate(parts.train, [*valid, *test])
    if len(kept) < settings.min_pairs:
        raise CorpusError(f"{language}: {len(kept)} training pairs are left, min_pairs is {settings.min_pairs}")
    contaminated = len(parts.train) - len(kept)
    train = choose(kept, settings.max_pairs, settings.seed)
    return Corpus(train=train, valid=valid, test=test, report=report, contaminated=contaminated)
