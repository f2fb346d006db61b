"""What a sentence says, apart from any language: the types every grammar puts into words.

Words are named by keys (``"post_office"``), which every lexicon knows; the classes of keys are in `vocabulary`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from train.phrasebook.referent import Clock, NounPhrase, Person, Portion

Tense = Literal["present", "progressive", "past", "future"]


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """Anything a sentence can say."""

    negative: bool = False
    question: bool = False


class Act(Meaning, frozen=True, kw_only=True):
    """Someone does something: Anna bought three books at the market yesterday."""

    subject: Person
    verb: str
    tense: Tense = "present"
    object: NounPhrase | Person | None = None
    to: str = ""
    """Place or city."""
    by: str = ""
    """Vehicle; only with `to`."""
    at: str = ""
    """Place."""
    time: str = ""
    modal: Literal["", "want", "must", "can"] = ""
    asked: Literal["", "what", "where", "when"] = ""
    """What a question asks for; a yes-or-no question if empty."""


class Speak(Meaning, frozen=True, kw_only=True):
    """Someone speaks a language, perhaps only a little."""

    subject: Person
    language: str
    little: bool = False


class Stay(Meaning, frozen=True, kw_only=True):
    """Someone stays in a city for a number of days, nights, weeks or months."""

    subject: Person
    tense: Literal["past", "future"]
    city: str
    count: int
    unit: str


class Order(Meaning, frozen=True, kw_only=True):
    """An order in a restaurant, with or without ``I would like``."""

    portions: tuple[Portion, ...]
    full: bool


class FindWay(Meaning, frozen=True, kw_only=True):
    """Asking for a place: where it is, how to get there, or whether one is near a landmark."""

    place: str
    kind: Literal["where", "nearest", "how", "near"]
    near: str = ""


class Located(Meaning, frozen=True, kw_only=True):
    """One place is beside, opposite, behind, in front of or near another."""

    place: str
    relation: str
    landmark: str


class Directions(Meaning, frozen=True, kw_only=True):
    """Go straight ahead to one place, and turn there; or turn at one and again at the next."""

    first: str
    side: Literal["left", "right"]
    then: str
    side_then: Literal["left", "right"]


class Price(Meaning, frozen=True, kw_only=True):
    """What something costs; 0 euros asks for the price."""

    thing: NounPhrase
    euros: int


class Have(Meaning, frozen=True, kw_only=True):
    """Someone has a thing, an animal, children or friends."""

    subject: Person
    thing: NounPhrase


class Like(Meaning, frozen=True, kw_only=True):
    """Someone likes a kind of thing, or doing something (`activity`)."""

    subject: Person
    thing: NounPhrase | None = None
    activity: str = ""


class Need(Meaning, frozen=True, kw_only=True):
    """Someone needs a thing."""

    subject: Person
    thing: NounPhrase


class Quality(Meaning, frozen=True, kw_only=True):
    """A thing has a quality: the soup is too hot."""

    thing: NounPhrase
    adjective: str
    degree: Literal["", "very", "too"]


class State(Meaning, frozen=True, kw_only=True):
    """How someone is: tired, hungry, ill ..."""

    subject: Person
    state: str


class Weather(Meaning, frozen=True, kw_only=True):
    """The weather somewhere, at some time."""

    kind: str
    tense: Literal["progressive", "past", "future"]
    time: str = ""
    city: str = ""


class Opening(Meaning, frozen=True, kw_only=True):
    """When a place opens or closes; no clock asks for the time."""

    place: str
    opens: bool
    day: str
    clock: Clock | None


class Departure(Meaning, frozen=True, kw_only=True):
    """When a train or bus leaves for a city or arrives from one; no clock asks for the time."""

    vehicle: str
    city: str
    leaves: bool
    clock: Clock | None


class Profession(Meaning, frozen=True, kw_only=True):
    """What someone is, or was, by profession."""

    subject: Person
    profession: str
    tense: Literal["present", "past"]


class Request(Meaning, frozen=True, kw_only=True):
    """Please bring, give or show me (or us) something."""

    verb: str
    thing: NounPhrase | Portion
    us: bool


class Give(Meaning, frozen=True, kw_only=True):
    """Someone gives, shows or sends something to someone."""

    subject: Person
    verb: str
    recipient: Person
    thing: NounPhrase
    tense: Literal["past", "future"]
    time: str


class Compare(Meaning, frozen=True, kw_only=True):
    """One thing is cheaper, bigger ... than another."""

    thing: NounPhrase
    adjective: str
    other: NounPhrase


class Age(Meaning, frozen=True, kw_only=True):
    """How old someone is."""

    subject: Person
    years: int


class Contents(Meaning, frozen=True, kw_only=True):
    """What is on the table, in the bag ..."""

    where: str
    thing: NounPhrase


class Reserve(Meaning, frozen=True, kw_only=True):
    """I would like to reserve a table for a number of people, or a room for a number of nights."""

    what: Literal["table", "room"]
    count: int
    day: str
    clock: Clock | None


class Because(Meaning, frozen=True, kw_only=True):
    """A decision and its reason."""

    act: Act
    reason: State | Weather


class If(Meaning, frozen=True, kw_only=True):
    """What someone will do in some weather."""

    weather: Weather
    act: Act


class But(Meaning, frozen=True, kw_only=True):
    """A wish and what stands in its way, or a liking and a dislike of the same person."""

    first: Act | Like
    second: State | Weather | Have | Like


class And(Meaning, frozen=True, kw_only=True):
    """What two people are doing at the same time."""

    first: Act
    second: Act
