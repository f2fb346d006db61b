"""A sentence and its English translation: what every corpus is made of."""

from __future__ import annotations

import msgspec


class CorpusError(ValueError):
    """Text that cannot be used; the message names the file and, where there is one, the line."""


class Pair(msgspec.Struct, frozen=True, omit_defaults=True):
    source: str
    """In the language that a drafter is trained for."""
    english: str
    document: str | None = None
    """What the pair was taken from, where that is known; a document is never split over train, valid and test."""
