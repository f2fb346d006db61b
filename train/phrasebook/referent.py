"""What sentences speak of: people, things, portions and times of day."""

from __future__ import annotations

from typing import Literal

import msgspec

from train.phrasebook.vocabulary import COUNTABLE, PLURAL_ONLY


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Someone a sentence is about, with what verbs and adjectives agree with."""

    key: str
    person: Literal[1, 2, 3] = 3
    plural: bool = False
    gender: Literal["m", "f"] = "m"

    @property
    def pronoun(self) -> Person:
        """The same person mentioned again: he, she or they for a name or a noun."""
        if self.key in ("I", "we", "you", "You"):
            return self
        key = "they" if self.plural else "he" if self.gender == "m" else "she"
        return Person(key=key, plural=self.plural, gender=self.gender)


class NounPhrase(msgspec.Struct, frozen=True, kw_only=True):
    """A thing or a number of things: a red shirt, three books, the key, (some) coffee."""

    noun: str
    determiner: Literal["a", "the", "some"] = "a"
    """`some` is an unspecified amount: a bare noun in English, a partitive in French."""
    adjective: str = ""
    count: int = 1
    """Written out when above 1."""

    @property
    def plural(self) -> bool:
        many = self.determiner == "some" and self.noun in COUNTABLE
        return self.count > 1 or self.noun in PLURAL_ONLY or many


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """What is ordered: two cups of coffee, or three eggs (no measure)."""

    count: int
    measure: str = ""
    noun: str


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """A time of day on the twelve-hour clock."""

    hour: int
    half: bool = False
    """Half past the hour."""
