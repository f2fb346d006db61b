"""The sentences of the traveller: ordering, asking the way, prices, times, the hotel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Literal

from train.phrasebook import vocabulary as v
from train.phrasebook.acts import one, qualified, some, the
from train.phrasebook.meaning import (
    Compare,
    Contents,
    Departure,
    Directions,
    FindWay,
    Located,
    Opening,
    Order,
    Price,
    Quality,
    Request,
    Reserve,
    Stay,
    Weather,
)
from train.phrasebook.people import SUBJECTS
from train.phrasebook.referent import Clock, NounPhrase, Portion

HOURS = tuple(Clock(hour=hour, half=half) for hour, half in product(range(1, 13), (False, True)))
SERVINGS = (
    *((("cup", noun)) for noun in ("coffee", "tea")),
    *((("glass", noun)) for noun in ("water", "milk", "juice", "wine", "beer")),
    *((("bottle", noun)) for noun in ("water", "wine", "beer", "juice")),
    *((("piece", noun)) for noun in ("cake", "bread", "cheese")),
    *((("", noun)) for noun in ("egg", "sandwich", "banana", "apple")),
)
PORTIONS = tuple(
    Portion(count=count, measure=measure, noun=noun) for (measure, noun), count in product(SERVINGS, (1, 2, 3, 4))
)
CENTRAL = tuple(place for place in v.PLACE if place not in ("airport", "beach"))
"""Places that have others beside them."""
UNGRADED = {"very": ("new",), "too": ("new", "good", "fresh", "beautiful")}
"""What is not said of a thing: very new, too good."""
COSTLY = ("", *v.COLOR, "new", "small", "big")
WARES: tuple[tuple[tuple[NounPhrase, ...], tuple[int, ...]], ...] = (
    (qualified(the(*v.CLOTHES), COSTLY), v.EUROS[8:]),
    (the("bag", "suitcase", "umbrella", "camera", "watch", "phone", "bicycle"), v.EUROS[8:]),
    (the("book", "map", "ticket", *v.FOOD, *v.DRINK), v.EUROS[:12]),
)
"""Things for sale with what they may cost."""


def orders() -> Iterator[Order]:
    for full in (True, False):
        for portion in PORTIONS:
            yield Order(portions=(portion,), full=full)
        for first, second in permutations(PORTIONS, 2):
            if first.noun != second.noun and first.count <= 2:
                yield Order(portions=(first, second), full=full)


def requests() -> Iterator[Request]:
    singles: list[NounPhrase | Portion] = [portion for portion in PORTIONS if portion.measure and portion.count <= 2]
    brought = (*one(*v.TABLEWARE[2:]), *the(*v.TABLEWARE[:2], "key", "suitcase"), *singles)
    shown = (*qualified(the(*v.CLOTHES), COSTLY), *the("map", "menu", "camera", "watch", "book", "ticket"))
    given = (*the("key", "ticket", "map", "newspaper", "bill", "menu"), *one("fork", "spoon", "towel"), *singles)
    asked: dict[str, tuple[NounPhrase | Portion, ...]] = {"bring": brought, "show": shown, "give": given}
    for verb, things in asked.items():
        for thing, us in product(things, (False, True)):
            yield Request(verb=verb, thing=thing, us=us, question=True)


def ways() -> Iterator[FindWay]:
    kinds: tuple[Literal["where", "nearest", "how"], ...] = ("where", "nearest", "how")
    for place, kind in product(v.PLACE, kinds):
        yield FindWay(place=place, kind=kind, question=True)
    for place, near in permutations(CENTRAL, 2):
        yield FindWay(place=place, kind="near", near=near, question=True)


def locations() -> Iterator[Located]:
    for (place, landmark), relation in product(permutations(CENTRAL, 2), v.RELATION):
        yield Located(place=place, relation=relation, landmark=landmark)
        if relation == "near":
            yield Located(place=place, relation=relation, landmark=landmark, question=True)
            yield Located(place=place, relation=relation, landmark=landmark, negative=True)


def directions() -> Iterator[Directions]:
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    for (first, then), side, side_then in product(permutations(CENTRAL, 2), sides, sides):
        yield Directions(first=first, side=side, then=then, side_then=side_then)


def prices() -> Iterator[Price]:
    for things, costs in WARES:
        for thing in things:
            yield Price(thing=thing, euros=0, question=True)
            for euros in costs:
                yield Price(thing=thing, euros=euros)


def qualities() -> Iterator[Quality]:
    classes: tuple[tuple[tuple[NounPhrase, ...], tuple[str, ...]], ...] = (
        (the("soup", "coffee", "tea", "milk", "rice"), ("hot", "cold", "good", "expensive")),
        (the("bread", "cheese", "fish", "meat", "salad", "cake", "vegetables"), ("fresh", "good", "expensive")),
        (the("water", "beer", "juice", "wine"), ("cold", "good", "expensive")),
        (the(*v.CLOTHES), ("new", "big", "small", "beautiful", "cheap", "expensive", "warm")),
        (the("bag", "suitcase", "umbrella", "camera", "watch", "phone"), ("new", "big", "small", "expensive", "cheap")),
        (the("hotel", "restaurant"), ("big", "small", "good", "cheap", "expensive", "beautiful")),
        (the("church", "museum", "theater", "park", "station", "beach"), ("big", "small", "beautiful")),
    )
    degrees: tuple[Literal["", "very", "too"], ...] = ("", "very", "too")
    for things, adjectives in classes:
        for thing, adjective, degree in product(things, adjectives, degrees):
            if adjective in UNGRADED.get(degree, ()):
                continue
            yield Quality(thing=thing, adjective=adjective, degree=degree)
            if not degree:
                yield Quality(thing=thing, adjective=adjective, degree=degree, negative=True)
                yield Quality(thing=thing, adjective=adjective, degree=degree, question=True)


def comparisons() -> Iterator[Compare]:
    classes = (
        (v.VEHICLE, ("fast", "cheap", "expensive")),
        (v.CLOTHES, ("cheap", "expensive", "beautiful", "warm", "big")),
        (("bag", "suitcase", "umbrella", "camera", "watch", "phone"), ("cheap", "expensive", "small", "big")),
        (("hotel", "restaurant", "church", "museum", "theater", "park"), ("big", "small", "beautiful")),
        (("soup", "bread", "cheese", "fish", "meat", "salad", "cake"), ("good", "cheap", "expensive")),
        (("coffee", "tea", "water", "juice", "beer", "wine"), ("good", "cheap", "cold")),
    )
    for nouns, adjectives in classes:
        for (thing, other), adjective in product(permutations(the(*nouns), 2), adjectives):
            yield Compare(thing=thing, other=other, adjective=adjective)
            yield Compare(thing=thing, other=other, adjective=adjective, question=True)


def contents() -> Iterator[Contents]:
    for where, noun in product(v.SURFACE, ("book", "newspaper", "key", "ticket", "map", "photo", "cup", "spoon")):
        for count in range(1, 8):
            yield Contents(where=where, thing=NounPhrase(noun=noun, count=count))
        yield Contents(where=where, thing=NounPhrase(noun=noun), question=True)
    for where, thing in product(v.SURFACE, some("bread", "cheese", "apple", "egg", "flower")):
        yield Contents(where=where, thing=thing)


def reservations() -> Iterator[Reserve]:
    for count, day, clock in product(range(2, 11), ("tomorrow", "tonight", "on_Monday", "on_Saturday"), HOURS):
        if clock.hour in (6, 7, 8, 9):
            yield Reserve(what="table", count=count, day=day, clock=clock)
    for count in range(1, 11):
        yield Reserve(what="room", count=count, day="", clock=None)


def stays() -> Iterator[Stay]:
    tenses: tuple[Literal["past", "future"], ...] = ("past", "future")
    lengths = [
        (count, unit)
        for unit, most in (("day", 7), ("night", 7), ("week", 4), ("month", 6))
        for count in range(1, most + 1)
    ]
    for subject, tense, city, (count, unit) in product(SUBJECTS, tenses, v.CITY, lengths):
        yield Stay(subject=subject, tense=tense, city=city, count=count, unit=unit)


def openings() -> Iterator[Opening]:
    for place, opens, day in product((*v.SHOP, "restaurant"), (True, False), ("", "today", "tomorrow", "on_Saturday")):
        yield Opening(place=place, opens=opens, day=day, clock=None, question=True)
        for clock in HOURS:
            if clock.hour in (range(6, 12) if opens else range(4, 12)):
                yield Opening(place=place, opens=opens, day=day, clock=clock)


def departures() -> Iterator[Departure]:
    for vehicle, city, leaves in product(("train", "bus", "plane"), v.CITY, (True, False)):
        yield Departure(vehicle=vehicle, city=city, leaves=leaves, clock=None, question=True)
        for clock in HOURS:
            yield Departure(vehicle=vehicle, city=city, leaves=leaves, clock=clock)


def weather() -> Iterator[Weather]:
    times: list[tuple[Literal["progressive", "past", "future"], str]] = [("progressive", "today")]
    times += [("past", time) for time in v.PAST] + [("future", time) for time in v.FUTURE]
    for kind, city, (tense, time) in product(v.WEATHER, ("", *v.CITY), times):
        for negative, question in ((False, False), (True, False), (False, True)):
            yield Weather(kind=kind, city=city, tense=tense, time=time, negative=negative, question=question)
