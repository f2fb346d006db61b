"""Cleaning and splitting parallel text, the same way in every language and on every machine."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import msgspec

from train.pair import Pair


class CleaningReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the pairs that were read; read = kept + empty + identical + over_long + duplicate."""

    read: int
    kept: int
    empty: int
    identical: int
    """Source and English are the same text: nothing was translated."""
    over_long: int
    duplicate: int


class Split(msgspec.Struct, frozen=True, kw_only=True):
    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]


def clean(pairs: Iterable[Pair], max_characters: int) -> tuple[list[Pair], CleaningReport]:
    """Normalise to NFC, strip, and drop empty, identical, over-long and repeated pairs; the order stays."""
    kept: dict[Pair, None] = {}
    dropped = {"empty": 0, "identical": 0, "over_long": 0, "duplicate": 0}
    for raw in pairs:
        pair = Pair(source=_normal(raw.source), english=_normal(raw.english))
        reason = "duplicate" if pair in kept else _defect(pair, max_characters)
        if reason:
            dropped[reason] += 1
        else:
            kept[pair] = None
    read = len(kept) + sum(dropped.values())
    return list(kept), CleaningReport(read=read, kept=len(kept), **dropped)


def split(pairs: Iterable[Pair], *, valid: float, test: float, seed: int) -> Split:
    """Take about these shares of `pairs` for validation and test.

    A hash of the English side decides, so the same English sentence is in the same part in every language.
    """
    if valid < 0 or test < 0 or valid + test > 1:
        raise ValueError(f"shares of valid ({valid}) and test ({test}) must be at least 0 and at most 1 together")
    parts = Split(train=[], valid=[], test=[])
    for pair in pairs:
        position = _position(pair, f"split {seed}")
        part = parts.test if position < test else parts.valid if position < test + valid else parts.train
        part.append(pair)
    return parts


def choose(pairs: list[Pair], count: int | None, seed: int) -> list[Pair]:
    """At most `count` of `pairs` in their order, chosen by a hash of the English side; None: all of them."""
    if count is None or len(pairs) <= count:
        return pairs
    ranked = sorted(range(len(pairs)), key=lambda index: _position(pairs[index], f"choose {seed}"))
    return [pairs[index] for index in sorted(ranked[:count])]


def decontaminate(train: Iterable[Pair], held_out: Iterable[Pair]) -> list[Pair]:
    """The pairs of `train` of which neither side occurs in `held_out`; case and spacing do not count."""
    known = {_key(text) for pair in held_out for text in (pair.source, pair.english)}
    return [pair for pair in train if _key(pair.source) not in known and _key(pair.english) not in known]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _defect(pair: Pair, max_characters: int) -> str | None:
    if not pair.source or not pair.english:
        return "empty"
    if pair.source == pair.english:
        return "identical"
    return "over_long" if max(len(pair.source), len(pair.english)) > max_characters else None


def _position(pair: Pair, salt: str) -> float:
    """Where the English side falls in [0, 1): uniform, and the same on every machine."""
    digest = hashlib.blake2b(_key(pair.english).encode(), digest_size=8, salt=_salt(salt)).digest()
    return int.from_bytes(digest) / 2**64


def _salt(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=hashlib.blake2b.SALT_SIZE).digest()


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
