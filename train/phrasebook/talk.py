"""The sentences about people: what they have, like, need, speak and are, and those made of two clauses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Literal

from train.phrasebook import vocabulary as v
from train.phrasebook.acts import CLOTHES, DRINKS, FOODS, GOODS, counted, one, some
from train.phrasebook.meaning import (
    Act,
    Age,
    And,
    Because,
    But,
    Give,
    Have,
    If,
    Like,
    Meaning,
    Need,
    Profession,
    Speak,
    State,
    Weather,
)
from train.phrasebook.people import ANNA, ASKED, CHILDREN, DOCTOR, MARTIN, SUBJECTS, TEACHER
from train.phrasebook.referent import Person

MOODS = ((False, False), (True, False), (False, True))
"""Statement, denial, question: (negative, question)."""

OWNED = (*one(*v.CARRIED, *v.VEHICLE_OWNED, *v.ANIMAL), *CLOTHES[7:], *GOODS[14:])
LIKED = (*some(*v.FOOD, *v.DRINK, *v.SNACK, *v.ANIMAL, "flower", "book"), *DRINKS[7:])
SIGHTS = ("cinema", "theater", "park", "museum", "restaurant", "beach", "market", "library")


def asked(question: bool) -> tuple[Person, ...]:
    return ASKED if question else SUBJECTS


def possessions() -> Iterator[Have]:
    for negative, question in MOODS:
        for subject, thing in product(asked(question), (*OWNED, *one(*v.RELATIVE))):
            yield Have(subject=subject, thing=thing, negative=negative, question=question)
        for subject, thing in product(asked(question), some("time", "money", "child", "friend")):
            if thing.noun in ("time", "money") or negative:
                yield Have(subject=subject, thing=thing, negative=negative, question=question)
    many = (*counted((*v.RELATIVE, *v.ANIMAL, "ticket", "suitcase", "key")), *counted(v.ANIMAL, ("black", "white", "small")))
    for subject, thing in product(SUBJECTS, many):
        yield Have(subject=subject, thing=thing)


def likings() -> Iterator[Like]:
    for negative, question in MOODS:
        for subject, thing in product(asked(question), LIKED):
            yield Like(subject=subject, thing=thing, negative=negative, question=question)
        for subject, activity in product(asked(question), v.ACTIVITY):
            yield Like(subject=subject, activity=activity, negative=negative, question=question)


def needs() -> Iterator[Need]:
    things = (*one(*v.CARRIED, *v.TABLEWARE[2:], *v.VEHICLE_OWNED), *CLOTHES, *GOODS[14:], *some("money", "time", "help"))
    for negative, question in MOODS:
        for subject, thing in product(asked(question), things):
            yield Need(subject=subject, thing=thing, negative=negative, question=question)


def speech() -> Iterator[Speak]:
    for negative, question in MOODS:
        for subject, language in product(asked(question), v.LANGUAGE):
            yield Speak(subject=subject, language=language, negative=negative, question=question)
    for subject, language in product(SUBJECTS, v.LANGUAGE):
        yield Speak(subject=subject, language=language, little=True)


def states() -> Iterator[State]:
    for negative, question in MOODS:
        for subject, state in product(asked(question), v.STATE):
            yield State(subject=subject, state=state, negative=negative, question=question)


def professions() -> Iterator[Profession]:
    tenses: tuple[Literal["present", "past"], ...] = ("present", "past")
    for (negative, question), tense in product(MOODS, tenses):
        for subject, profession in product(asked(question), v.PROFESSION):
            if subject != CHILDREN:
                yield Profession(
                    subject=subject, profession=profession, tense=tense, negative=negative, question=question
                )


def ages() -> Iterator[Age]:
    for subject, years in product(SUBJECTS, v.YEARS):
        if not subject.plural and (years >= 20 or subject.key in ("he", "she", "son", "daughter", "Anna", "Martin")):
            yield Age(subject=subject, years=years)


def gifts() -> Iterator[Give]:
    times: tuple[tuple[Literal["past", "future"], str], ...] = (
        ("past", "yesterday"), ("past", "last_week"), ("future", "tomorrow"), ("future", "on_Monday")
    )
    for verb, recipients in (("give", (ANNA, MARTIN, CHILDREN)), ("show", (ANNA, TEACHER, DOCTOR)),
                             ("send", (ANNA, MARTIN, TEACHER))):
        things = one(*v.GIFT) if verb != "show" else one("book", "letter", "photo", "map", "ticket")
        for subject, recipient, thing, (tense, time) in product(SUBJECTS, recipients, things, times):
            if subject != recipient:
                yield Give(subject=subject, verb=verb, recipient=recipient, thing=thing, tense=tense, time=time)


def reasons() -> Iterator[Because]:
    """Going out, or staying in, for a reason."""
    for subject, time in product(SUBJECTS, ("tonight", "tomorrow")):
        weather = [Weather(kind=kind, tense="progressive") for kind in ("rain", "snow", "cold", "windy", "hot")]
        states = [State(subject=subject.pronoun, state=state) for state in ("tired", "sick", "busy")]
        reasons = (*weather, *states) if time == "tonight" else (*states[1:],)
        for reason in reasons:
            yield Because(act=Act(subject=subject, verb="stay_home", tense="future", time=time), reason=reason)
            for place in SIGHTS:
                act = Act(subject=subject, verb="go", to=place, tense="future", time=time, negative=True)
                yield Because(act=act, reason=reason)


def plans() -> Iterator[If]:
    """What someone will do in some weather."""
    weathers = [
        Weather(kind=kind, tense="future", time=time)
        for kind, time in product(v.WEATHER, ("tomorrow", "tonight", "on_Saturday"))
        if kind != "hot"
    ]
    for weather, subject in product(weathers, SUBJECTS):
        yield If(weather=weather, act=Act(subject=subject, verb="stay_home", tense="future"))
        for place in SIGHTS:
            yield If(weather=weather, act=Act(subject=subject, verb="go", to=place, tense="future"))


def obstacles() -> Iterator[But]:
    """Wishes that cannot be fulfilled."""
    wishes: list[dict[str, str]] = [{"verb": "go", "to": place} for place in SIGHTS]
    wishes += [{"verb": verb} for verb in ("swim", "dance", "cook")]
    for subject, wish in product(SUBJECTS, wishes):
        again = subject.pronoun
        seconds: list[State | Weather | Have] = [
            *(State(subject=again, state=state) for state in ("tired", "sick", "busy")),
            *(Weather(kind=kind, tense="progressive") for kind in ("rain", "cold", "windy")),
            *(Have(subject=again, thing=thing, negative=True) for thing in some("time", "money")),
        ]
        for second in seconds:
            if wish["verb"] != "cook" or isinstance(second, State):
                yield But(first=Act(subject=subject, modal="want", **wish), second=second)  # type: ignore[arg-type]


def preferences() -> Iterator[But]:
    """Liking one thing and not another of its kind."""
    kinds = (v.FOOD, v.DRINK, v.ANIMAL)
    for subject, kind in product(SUBJECTS, kinds):
        for liked, disliked in permutations(some(*kind), 2):
            second = Like(subject=subject.pronoun, thing=disliked, negative=True)
            yield But(first=Like(subject=subject, thing=liked), second=second)


def pairs_of_acts() -> Iterator[And]:
    """What two people are doing at the same time."""
    doings: list[dict[str, object]] = [{"verb": "eat", "object": thing} for thing in FOODS[::3]]
    doings += [{"verb": "drink", "object": thing} for thing in DRINKS[:4]]
    doings += [{"verb": "read", "object": thing} for thing in one("book", "newspaper")]
    doings += [{"verb": verb} for verb in v.ACTIVITY[:3]]
    pairs = [pair for pair in permutations(SUBJECTS, 2) if pair[0].key != pair[1].key and pair[1].key not in ("I", "we")]
    for number, ((one_, other), (doing, other_doing)) in enumerate(product(pairs, permutations(doings, 2))):
        if number % 4 == 0:  # a quarter of them is plenty
            first = Act(subject=one_, tense="progressive", **doing)  # type: ignore[arg-type]
            second = Act(subject=other, tense="progressive", **other_doing)  # type: ignore[arg-type]
            yield And(first=first, second=second)
