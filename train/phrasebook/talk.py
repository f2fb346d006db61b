"""The sentences about people: what they have, like, need, speak and are, and those made of two clauses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Literal

from train.phrasebook import vocabulary as v
from train.phrasebook.acts import CLOTHES, DRINKS, FOODS, GOODS, counted, one, some, suits
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
    Need,
    Profession,
    Speak,
    State,
    Weather,
)
from train.phrasebook.people import ANNA, ASKED, CHILDREN, DOCTOR, FAMILY, HE, MARTIN, SUBJECTS, TEACHER
from train.phrasebook.referent import Person

YOUNG = (CHILDREN, *(person for person in FAMILY if person.key in ("son", "daughter")))
"""Those who have no children yet."""

MOODS = ((False, False), (True, False), (False, True))
"""Statement, denial, question: (negative, question)."""

OWNED = (*one(*v.CARRIED, *v.VEHICLE_OWNED, *v.ANIMAL), *CLOTHES[7:], *GOODS[14:])
LIKED = (*some(*v.FOOD, *v.DRINK, *v.SNACK, *v.ANIMAL, "flower", "book"), *DRINKS[7:])
INDOORS = ("cinema", "theater", "museum", "restaurant", "library")
OUTDOORS = ("park", "beach", "market")
SIGHTS = (*INDOORS, *OUTDOORS)


def about(question: bool, word: str = "") -> tuple[Person, ...]:
    """Whom one asks about, or makes statements about, in connection with the thing or activity."""
    return tuple(person for person in (ASKED if question else SUBJECTS) if suits(person, word))


def possessions() -> Iterator[Have]:
    for negative, question in MOODS:
        for thing in OWNED:
            for subject in about(question, thing.noun):
                yield Have(subject=subject, thing=thing, negative=negative, question=question)
        for subject, thing in product(about(question), some("time", "money")):
            if negative or question:
                yield Have(subject=subject, thing=thing, negative=negative, question=question)
        for subject, thing in product(about(question), some("child")):
            if subject not in YOUNG and (negative or question):
                yield Have(subject=subject, thing=thing, negative=negative, question=question)
    pets = counted(v.ANIMAL, ("", "black", "white", "small"))
    for subject, thing in product(SUBJECTS, (*pets, *counted(("ticket", "suitcase", "key")))):
        yield Have(subject=subject, thing=thing)
    for subject, thing in product(SUBJECTS, (*one(*v.RELATIVE), *counted(v.RELATIVE))):
        if subject not in YOUNG and subject.key != thing.noun:
            yield Have(subject=subject, thing=thing)


def likings() -> Iterator[Like]:
    for negative, question in MOODS:
        for thing in LIKED:
            for subject in about(question, thing.noun):
                yield Like(subject=subject, thing=thing, negative=negative, question=question)
        for activity in v.ACTIVITY:
            for subject in about(question, activity):
                yield Like(subject=subject, activity=activity, negative=negative, question=question)


def needs() -> Iterator[Need]:
    things = (
        *one(*v.CARRIED, *v.TABLEWARE[2:], *v.VEHICLE_OWNED),
        *CLOTHES,
        *GOODS[14:],
        *some("money", "time", "help"),
    )
    for negative, question in MOODS:
        for thing in things:
            for subject in about(question, thing.noun):
                yield Need(subject=subject, thing=thing, negative=negative, question=question)


def speech() -> Iterator[Speak]:
    for negative, question in MOODS:
        for subject, language in product(about(question), v.LANGUAGE):
            yield Speak(subject=subject, language=language, negative=negative, question=question)
    for subject, language in product(SUBJECTS, v.LANGUAGE):
        yield Speak(subject=subject, language=language, little=True)


def states() -> Iterator[State]:
    for negative, question in MOODS:
        for subject, state in product(about(question), v.STATE):
            yield State(subject=subject, state=state, negative=negative, question=question)


def professions() -> Iterator[Profession]:
    tenses: tuple[Literal["present", "past"], ...] = ("present", "past")
    for (negative, question), tense in product(MOODS, tenses):
        for subject, profession in product(about(question), v.PROFESSION):
            if subject not in YOUNG:
                yield Profession(
                    subject=subject, profession=profession, tense=tense, negative=negative, question=question
                )


def ages() -> Iterator[Age]:
    for subject, years in product(SUBJECTS, v.YEARS):
        least = {"mother": 40, "father": 40, "he": 1, "she": 1, "son": 1, "daughter": 1}.get(subject.key, 20)
        if not subject.plural and years >= least:
            yield Age(subject=subject, years=years)


def gifts() -> Iterator[Give]:
    times: tuple[tuple[Literal["past", "future"], str], ...] = (
        ("past", "yesterday"),
        ("past", "last_week"),
        ("future", "tomorrow"),
        ("future", "on_Monday"),
    )
    for verb, recipients in (
        ("give", (ANNA, MARTIN, CHILDREN)),
        ("show", (ANNA, TEACHER, DOCTOR)),
        ("send", (ANNA, MARTIN, TEACHER)),
    ):
        things = one(*v.GIFT) if verb != "show" else one("book", "letter", "photo", "map", "ticket")
        for subject, recipient, thing, (tense, time) in product(SUBJECTS, recipients, things, times):
            if subject != recipient:
                yield Give(subject=subject, verb=verb, recipient=recipient, thing=thing, tense=tense, time=time)


def reasons() -> Iterator[Because]:
    """Going out, or staying in, for a reason."""
    for subject, time in product(SUBJECTS, ("tonight", "tomorrow")):
        weather = [Weather(kind=kind, tense="progressive") for kind in ("rain", "snow", "cold", "windy", "hot")]
        states = [State(subject=subject.pronoun, state=state) for state in ("tired", "sick", "busy")]
        reasons: tuple[State | Weather, ...] = (*weather, *states) if time == "tonight" else (*states[1:],)
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
        if weather.kind != "warm":
            yield If(weather=weather, act=Act(subject=subject, verb="stay_home", tense="future"))
        for place in OUTDOORS if weather.kind == "warm" else INDOORS:
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
    for kind in kinds:
        for liked, disliked in permutations(some(*kind), 2):
            for subject in about(False, liked.noun):
                second = Like(subject=subject.pronoun, thing=disliked, negative=True)
                yield But(first=Like(subject=subject, thing=liked), second=second)


def pairs_of_acts() -> Iterator[And]:
    """What two people are doing at the same time."""
    doings: list[dict[str, object]] = [{"verb": "eat", "object": thing} for thing in FOODS[:6:2]]
    doings += [{"verb": "drink", "object": thing} for thing in DRINKS[1:4]]
    doings += [{"verb": "read", "object": thing} for thing in one("book", "newspaper")]
    doings += [{"verb": verb} for verb in v.ACTIVITY[:3]]
    for subject, other in product(SUBJECTS, (HE, MARTIN, *FAMILY[:4])):
        for doing, other_doing in permutations(doings, 2):
            likely = suits(subject, str(doing["verb"]))
            if likely and subject.key not in (other.key, other.pronoun.key):
                first = Act(subject=subject, tense="progressive", **doing)  # type: ignore[arg-type]
                second = Act(subject=other, tense="progressive", **other_doing)  # type: ignore[arg-type]
                yield And(first=first, second=second)
