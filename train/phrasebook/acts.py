"""The sentences about what people do, want, can and have to do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from train.phrasebook import vocabulary as v
from train.phrasebook.meaning import Act, Tense
from train.phrasebook.people import ASKED, CHILDREN, MET, SUBJECTS, YOU, YOU_POLITE
from train.phrasebook.referent import NounPhrase, Person

Times = tuple[tuple[Tense, str], ...]

PAST: Times = tuple(("past", time) for time in v.PAST)
FUTURE: Times = tuple(("future", time) for time in v.FUTURE)
HABIT: Times = tuple(("present", time) for time in v.HABIT)
NOW: Times = (("progressive", "now"),)
DENIED: Times = (("present", ""), ("past", "yesterday"), ("past", "last_night"), *FUTURE)
"""What a negative sentence can be about: a habit, and what did not or will not happen."""

GROWN_UP = frozenset({"beer", "wine", "coffee", "car", "work"})
"""Not for children."""

RIDDEN = frozenset({"airport"})
"""Places too far to walk to."""


def some(*nouns: str) -> tuple[NounPhrase, ...]:
    return tuple(NounPhrase(noun=noun, determiner="some") for noun in nouns)


def one(*nouns: str) -> tuple[NounPhrase, ...]:
    return tuple(NounPhrase(noun=noun, determiner="some" if noun in v.PLURAL_ONLY else "a") for noun in nouns)


def the(*nouns: str) -> tuple[NounPhrase, ...]:
    return tuple(NounPhrase(noun=noun, determiner="the") for noun in nouns)


def qualified(things: tuple[NounPhrase, ...], adjectives: tuple[str, ...]) -> tuple[NounPhrase, ...]:
    return tuple(
        NounPhrase(noun=thing.noun, determiner=thing.determiner, adjective=adjective)
        for thing, adjective in product(things, adjectives)
    )


def counted(nouns: tuple[str, ...], adjectives: tuple[str, ...] = ("",)) -> tuple[NounPhrase, ...]:
    return tuple(
        NounPhrase(noun=noun, adjective=adjective, count=count)
        for noun, adjective, count in product(nouns, adjectives, (2, 3, 4, 5, 6))
        if noun not in v.PLURAL_ONLY
    )


FOODS = (*some(*v.FOOD), *one(*v.SNACK))
KINDS = some(*v.FOOD, *v.SNACK)
"""Foods in general, which is how one speaks of habits."""
DRINKS = (
    *some(*v.DRINK),
    *qualified(some("coffee", "tea", "milk"), ("hot",)),
    *qualified(some("water", "milk", "juice", "beer"), ("cold",)),
)
CLOTHES = (*one(*v.CLOTHES), *qualified(one(*v.CLOTHES), (*v.COLOR, "new", "cheap", "warm")))
GOODS = (
    *one(*v.READING[:2], *v.CARRIED, *v.VEHICLE_OWNED),
    *qualified(one("bag", "suitcase", "umbrella", "car", "bicycle"), ("new", "big", "small", *v.COLOR)),
    *qualified(one("phone", "camera", "watch"), ("new", "small", "cheap")),
)
BUNCHES = (
    *counted(("book", "ticket", "apple", "egg", "banana", "sandwich", "flower", "newspaper")),
    *counted(v.CLOTHES, ("", *v.COLOR)),
    *counted(("flower",), ("beautiful", *v.COLOR)),
    *counted(("cup", "glass", "fork", "spoon")),
)


def suits(who: Person, word: str) -> bool:
    """Whether the thing or activity is likely for this person."""
    if word == "dress":
        return who.gender == "f" or who.person < 3
    return who != CHILDREN or word not in GROWN_UP


def distinct(who: Person, other: object) -> bool:
    """Whether the two have no one in common: parents are mother and father."""
    parents = ("parents", "mother", "father")
    return who != other and not (isinstance(other, Person) and who.key in parents and other.key in parents)


def acts(subjects: tuple[Person, ...], times: Times, **fields: object) -> Iterator[Act]:
    """The act by each subject it suits at each time; no one meets, calls or waits for himself."""
    thing, verb = fields.get("object"), str(fields["verb"])
    word = thing.noun if isinstance(thing, NounPhrase) else verb
    for subject, (tense, time) in product(subjects, times):
        if distinct(subject, thing) and suits(subject, word):
            yield Act(subject=subject, tense=tense, time=time, **fields)  # type: ignore[arg-type]


def moods(times: Times, denied: Times, **fields: object) -> Iterator[Act]:
    """The act as statement and as question at each of `times`, and denied at each of `denied`."""
    yield from acts(SUBJECTS, times, **fields)
    yield from acts(ASKED, times, question=True, **fields)
    yield from acts(SUBJECTS, denied, negative=True, **fields)


def meals() -> Iterator[Act]:
    """Eating and drinking."""
    for verb, usual, things in (("eat", KINDS, FOODS), ("drink", DRINKS, DRINKS)):
        for thing in usual:
            yield from moods(HABIT, DENIED[:1], verb=verb, object=thing)
        for thing in things:
            yield from moods((*NOW, *PAST[::2], *FUTURE), DENIED[1:], verb=verb, object=thing)


def purchases() -> Iterator[Act]:
    """Buying things to eat, to wear and to use."""
    for thing in (*CLOTHES, *GOODS):
        yield from moods((*PAST[:2], *FUTURE), PAST[:1], verb="buy", object=thing)
    for thing in BUNCHES:
        yield from acts(SUBJECTS, (*PAST[:2], *FUTURE[:2]), verb="buy", object=thing)
    for thing, at in product((*KINDS, *some("flower")), ("market", "supermarket")):
        if thing.noun != "soup":
            yield from acts(SUBJECTS, (*HABIT, *PAST[:2], *FUTURE), verb="buy", object=thing, at=at)


def pastimes() -> Iterator[Act]:
    """Reading, writing, working, cooking ..."""
    for noun in v.READING:
        yield from moods((*NOW, *PAST, *FUTURE), PAST, verb="read", object=one(noun)[0])
    for thing in some("book", "newspaper"):
        yield from moods(HABIT, DENIED[:1], verb="read", object=thing)
    yield from moods((*NOW, *PAST, *FUTURE), PAST, verb="write", object=one("letter")[0])
    for verb in v.ACTIVITY:
        yield from moods((*HABIT, *NOW, *PAST, *FUTURE), DENIED, verb=verb)
    for place in ("bank", "hospital", "hotel", "restaurant", "library", "airport", "school", "supermarket"):
        yield from moods((("present", ""), *PAST[1:], *FUTURE[1:]), DENIED, verb="work", at=place)


def belongings() -> Iterator[Act]:
    """Losing, finding and looking for things."""
    for thing in the(*v.CARRIED):
        yield from moods(PAST, (), verb="lose", object=thing)
        yield from moods(PAST, PAST, verb="find", object=thing)
        yield from moods(NOW, (), verb="look_for", object=thing)


def meetings() -> Iterator[Act]:
    """Meeting, calling and waiting for people."""
    for person in MET:
        yield from moods((*PAST, *FUTURE), PAST, verb="call", object=person)
        yield from moods((*PAST, *FUTURE), PAST, verb="meet", object=person)
        for place in ("station", "airport", "hotel", "museum", "church", "park"):
            yield from acts(SUBJECTS, (*PAST[:1], *FUTURE[:2]), verb="meet", object=person, at=place)
            yield from acts(SUBJECTS, NOW, verb="wait_for", object=person, at=place)


def trips() -> Iterator[Act]:
    """Going to places and cities."""
    for place in v.PLACE:
        verb = "ride" if place in RIDDEN else "go"
        yield from moods((*HABIT, *PAST[:2], *FUTURE), DENIED, verb=verb, to=place)
    for place, by in product(("airport", "station", "hotel", "hospital", "beach"), ("taxi", "bus", "car")):
        yield from moods((*PAST[:2], *FUTURE), (), verb="ride", to=place, by=by)
    for city, by in product(v.CITY, ("", "train", "bus", "plane", "car")):
        verb = "fly" if by == "plane" else "ride"
        yield from moods((*PAST[1:2], *FUTURE), PAST[1:2] if not by else (), verb=verb, to=city, by=by)


def wishes() -> Iterator[Act]:
    """Wanting, having and being able to do something."""
    planned: Times = tuple(("present", time) for time in ("", *v.FUTURE))
    fields: list[dict[str, object]] = [{"verb": "eat", "object": thing} for thing in FOODS]
    fields += [{"verb": "drink", "object": thing} for thing in DRINKS]
    fields += [{"verb": "buy", "object": thing} for thing in (*CLOTHES, *GOODS)]
    fields += [{"verb": "go", "to": place} for place in v.PLACE if place not in RIDDEN]
    fields += [{"verb": "ride", "to": city} for city in v.CITY]
    fields += [{"verb": "call", "object": person} for person in MET]
    for chosen in fields:
        times = planned if "to" in chosen else planned[:2]
        yield from moods(times, planned[:1], modal="want", **chosen)
        if chosen["verb"] not in ("eat", "drink"):
            yield from acts(SUBJECTS, planned[1:], modal="must", **chosen)
    for verb in v.ACTIVITY[1:]:
        yield from moods(planned[:1], planned[:1], modal="can", verb=verb)


def questions() -> Iterator[Act]:
    """Asking what, where and when."""
    asked = (YOU, YOU_POLITE, *ASKED[2:])
    for verb in ("eat", "drink", "buy", "read"):
        yield from acts(asked, (*NOW, *PAST, *FUTURE), verb=verb, asked="what", question=True)
        yield from acts(asked, (("present", ""),), verb=verb, asked="what", modal="want", question=True)
    for thing in (*the(*v.CLOTHES), *qualified(the(*v.CLOTHES), v.COLOR), *the(*v.CARRIED, *v.VEHICLE_OWNED)):
        yield from acts(asked, (("past", ""),), verb="buy", object=thing, asked="where", question=True)
    yield from acts(asked, (*PAST, *FUTURE), verb="go", asked="where", question=True)
    yield from acts(asked, (("present", ""),), verb="work", asked="where", question=True)
    for place in v.PLACE:
        verb = "ride" if place in RIDDEN else "go"
        yield from acts(asked, (("future", ""),), verb=verb, to=place, asked="when", question=True)
    for person in MET:
        for verb in ("meet", "call"):
            yield from acts(asked, (("future", ""),), verb=verb, object=person, asked="when", question=True)
