"""Cleaning parallel text as it streams by, the same way in every language and on every machine."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from common.languages import LanguageIdentifier
from common.settings import Settings
from train.batches import batches
from train.hashing import BATCH, SeenHashes, text_hash
from train.pair import Pair


class CleaningSettings(Settings, frozen=True, kw_only=True):
    """Which pairs are dropped, beside empty, identical and repeated ones."""

    min_characters: int = 1
    """Of either side."""
    max_characters: int = 1000
    """Of either side."""
    max_length_ratio: float | None = None
    """Of the longer side to the shorter, in UTF-8 bytes, which differ less between scripts than characters do."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes. A pair is dropped if its source side is identified as one of these languages, or English,
    rather than as the expected one; a source without words is kept. Empty: languages are not identified."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_characters <= self.max_characters:
            raise ValueError(f"min_characters {self.min_characters} must be from 1 to max_characters")
        if self.max_length_ratio is not None and self.max_length_ratio < 1:
            raise ValueError(f"max_length_ratio {self.max_length_ratio} must be at least 1")


class CleaningReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the pairs that were read; `read` is the sum of all others."""

    read: int
    kept: int
    empty: int = 0
    identical: int = 0
    """Source and English are the same text: nothing was translated."""
    too_short: int = 0
    over_long: int = 0
    unequal: int = 0
    """The sides' lengths differ by more than `max_length_ratio`."""
    duplicate: int = 0
    other_language: int = 0


class Cleaner:
    """Normalises pairs to NFC, strips them, and drops what cannot teach; their order stays.

    It remembers the hashes of the pairs it has seen, 8 bytes a pair, and nothing else.
    """

    def __init__(self, settings: CleaningSettings, language: str) -> None:
        self._settings, self._language = settings, language
        self._identifier = LanguageIdentifier([language, *settings.languages]) if settings.languages else None
        self._seen = SeenHashes()
        self._counts: Counter[str] = Counter()

    @property
    def report(self) -> CleaningReport:
        """Of the pairs taken from `clean` so far."""
        return CleaningReport(read=self._counts.total(), **{"kept": 0, **self._counts})

    def clean(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs that are kept. May be called again: pairs of earlier calls are then repetitions."""
        for batch in batches(pairs, BATCH):
            for pair, reason in self._judged([_normalised(pair) for pair in batch]):
                self._counts[reason or "kept"] += 1
                if not reason:
                    yield pair

    def _judged(self, pairs: list[Pair]) -> Iterator[tuple[Pair, str | None]]:
        """Each pair, and why it is dropped."""
        defects = [self._defect(pair) for pair in pairs]
        sound = [pair for pair, defect in zip(pairs, defects, strict=True) if not defect]
        new = iter(self._seen.add([text_hash(f"{len(p.source)} {p.source}{p.english}") for p in sound]))
        for pair, defect in zip(pairs, defects, strict=True):
            if not defect and not next(new):
                defect = "duplicate"
            yield pair, defect or self._language_defect(pair)

    def _defect(self, pair: Pair) -> str | None:
        if not pair.source or not pair.english:
            return "empty"
        if pair.source == pair.english:
            return "identical"
        shorter, longer = sorted((len(pair.source), len(pair.english)))
        if shorter < self._settings.min_characters:
            return "too_short"
        if longer > self._settings.max_characters:
            return "over_long"
        return "unequal" if self._unequal(pair) else None

    def _unequal(self, pair: Pair) -> bool:
        if self._settings.max_length_ratio is None:
            return False
        shorter, longer = sorted((len(pair.source.encode()), len(pair.english.encode())))
        return longer > self._settings.max_length_ratio * shorter

    def _language_defect(self, pair: Pair) -> str | None:
        found = self._identifier.identify(pair.source) if self._identifier else None
        return "other_language" if found not in (None, self._language) else None


def _normalised(pair: Pair) -> Pair:
    return Pair(_normal(pair.source), _normal(pair.english), pair.document)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
