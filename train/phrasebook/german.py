"""Putting meanings into German."""

from __future__ import annotations

from functools import singledispatch

import msgspec

from train.phrasebook import german_words as de
from train.phrasebook import meaning as say
from train.phrasebook.referent import NounPhrase, Person
from train.phrasebook.tables import join, sentence

IT = Person(key="it")
ASKED = {"what": "was", "where": "wo", "when": "wann", "": ""}


def realise(meaning: say.Meaning) -> str:
    """The meaning as a German sentence."""
    return sentence(express(meaning), "?" if meaning.question else ".")


@singledispatch
def express(meaning: say.Meaning) -> str:
    """The meaning as a clause: no capital, no final mark."""
    raise NotImplementedError(type(meaning).__name__)


def act_clause(m: say.Act) -> de.Clause:
    thing, last = "", ""
    if isinstance(m.object, Person):
        thing = de.PEOPLE[m.object.key][1]
        if m.verb == "wait_for":
            thing, last = "", f"auf {thing}"
    elif m.object:
        thing = de.noun_phrase(m.object, "acc", m.negative)
    kein = m.object and not isinstance(m.object, Person) and m.object.determiner != "the"
    to = (de.PLACES[m.to][0] if m.to in de.PLACES else f"nach {de.CITIES[m.to]}") if m.to else ""
    by = de.dative("mit", m.by) if m.by and m.verb != "fly" else ""
    at = de.PLACES[m.at][1] if m.at else "zu Hause" if m.verb == "stay_home" else ""
    middle = join(de.TIMES.get(m.time, ""), thing, "nicht" if m.negative and not kein else "", by, at, to, last)
    if m.modal:
        _, _, _, infinitive, _, _, *prefix = de.VERBS[m.verb]
        return de.Clause(de.nominative(m.subject), de.finite(m.modal, m.subject), middle, "".join(prefix) + infinitive)
    return de.predicate(m.subject, m.verb, m.tense, middle)


@express.register
def act(m: say.Act) -> str:
    if m.asked == "where" and m.verb == "go":
        return f"wohin {act_clause(m).verb_first()}"
    return join(ASKED[m.asked], act_clause(m).stated(m))


@express.register
def speak(m: say.Speak) -> str:
    amount = "ein bisschen" if m.little else "kein" if m.negative else ""
    rest = join(amount, de.LANGUAGES[m.language])
    return de.Clause(de.nominative(m.subject), de.finite("speak", m.subject), rest).stated(m)


@express.register
def stay(m: say.Stay) -> str:
    unit = de.UNITS[m.unit][m.count > 1]
    number = {"day": "einen", "month": "einen"}.get(m.unit, "eine") if m.count == 1 else de.NUMBERS[m.count]
    return de.predicate(m.subject, "stay", m.tense, f"{number} {unit} in {de.CITIES[m.city]}").stated(m)


@express.register
def order(m: say.Order) -> str:
    items = " und ".join(de.portion(served) for served in m.portions)
    return f"ich hätte gern {items}, bitte" if m.full else f"{items}, bitte"


@express.register
def find_way(m: say.FindWay) -> str:
    if m.kind == "how":
        return f"wie komme ich {de.dative('zu', m.place)}"
    if m.kind == "near":
        place = de.noun_phrase(NounPhrase(noun=m.place), "acc")
        return f"gibt es {de.near(m.near)} {place}"
    if m.kind == "where":
        return f"wo ist {de.definite(m.place)}"
    article, noun = de.definite(m.place).split(" ")
    return f"Entschuldigung, wo ist {article} nächste {noun}"


@express.register
def located(m: say.Located) -> str:
    where = de.near(m.landmark) if m.relation == "near" else de.dative(de.RELATIONS[m.relation], m.landmark)
    rest = join("nicht" if m.negative else "", where)
    return de.Clause(de.definite(m.place), "ist", rest).stated(m)


@express.register
def directions(m: say.Directions) -> str:
    sides = {"left": "nach links", "right": "nach rechts"}
    again = "noch einmal " if m.side == m.side_then else ""
    first, then = de.dative("an", m.first), de.dative("an", m.then)
    return f"gehen Sie {first} {sides[m.side]} und dann {then} {again}{sides[m.side_then]}"


@express.register
def price(m: say.Price) -> str:
    thing, verb = de.noun_phrase(m.thing, "nom"), "kosten" if de.gender(m.thing) == "p" else "kostet"
    return f"{thing} {verb} {de.NUMBERS[m.euros]} Euro" if m.euros else f"wie viel {verb} {thing}"


@express.register(say.Have)
@express.register(say.Need)
def have(m: say.Have | say.Need) -> str:
    verb = "have" if isinstance(m, say.Have) else "need"
    thing = de.noun_phrase(m.thing, "acc", m.negative)
    return de.Clause(de.nominative(m.subject), de.finite(verb, m.subject), thing).stated(m)


@express.register
def like(m: say.Like) -> str:
    if m.thing:
        rest, verb = de.noun_phrase(m.thing, "acc", m.negative), "like"
    else:
        rest, verb = "nicht gern" if m.negative else "gern", m.activity
    return de.Clause(de.nominative(m.subject), de.finite(verb, m.subject), rest).stated(m)


@express.register
def quality(m: say.Quality) -> str:
    degree = "nicht" if m.negative else {"": "", "very": "sehr", "too": "zu"}[m.degree]
    verb = "sind" if de.gender(m.thing) == "p" else "ist"
    return de.Clause(de.noun_phrase(m.thing, "nom"), verb, join(degree, de.ADJECTIVES[m.adjective][1])).stated(m)


def state_clause(m: say.State) -> de.Clause:
    rest = join("nicht" if m.negative else "", de.STATES[m.state])
    return de.Clause(de.nominative(m.subject), de.finite("be", m.subject), rest)


@express.register
def state(m: say.State) -> str:
    return state_clause(m).stated(m)


def weather_clause(m: say.Weather) -> de.Clause:
    middle = join(de.TIMES.get(m.time, ""), f"in {de.CITIES[m.city]}" if m.city else "", "nicht" if m.negative else "")
    if m.kind in de.WEATHER:
        verb = {"progressive": "ist", "past": "war", "future": "wird"}[m.tense]
        return de.Clause("es", verb, join(middle, de.WEATHER[m.kind]))
    present, participle, infinitive = de.FALLING[m.kind]
    if m.tense == "progressive":
        return de.Clause("es", present, middle)
    if m.tense == "past":
        return de.Clause("es", "hat", middle, participle)
    return de.Clause("es", "wird", middle, infinitive)


@express.register
def weather(m: say.Weather) -> str:
    return weather_clause(m).stated(m)


@express.register
def opening(m: say.Opening) -> str:
    verb, day = "öffnet" if m.opens else "schließt", de.TIMES.get(m.day, "")
    if m.clock is None:
        return join("wann", verb, de.definite(m.place), day)
    return join(de.definite(m.place), verb, day, de.clock(m.clock))


@express.register
def departure(m: say.Departure) -> str:
    verb, prefix, way = ("fährt", "ab", "nach") if m.leaves else ("kommt", "an", "aus")
    verb = "fliegt" if m.leaves and m.vehicle == "plane" else verb
    article, noun = de.definite(m.vehicle).split(" ")
    if m.clock is None:
        return f"wann {verb} {article} nächste {noun} {way} {de.CITIES[m.city]} {prefix}"
    return f"{article} {noun} {way} {de.CITIES[m.city]} {verb} {de.clock(m.clock)} {prefix}"


@express.register
def profession(m: say.Profession) -> str:
    man, woman, several = de.PROFESSIONS[m.profession]
    feminine = m.subject.gender == "f"
    name = several if m.subject.plural else woman if feminine else man
    no = ("keine " if m.subject.plural or feminine else "kein ") if m.negative else ""
    return de.Clause(
        de.nominative(m.subject), de.finite("was" if m.tense == "past" else "be", m.subject), no + name
    ).stated(m)


@express.register
def request(m: say.Request) -> str:
    verb = {"bring": "bringen", "show": "zeigen", "give": "geben"}[m.verb]
    return f"könnten Sie {'uns' if m.us else 'mir'} bitte {de.thing_or_portion(m.thing)} {verb}"


@express.register
def give(m: say.Give) -> str:
    middle = join(de.PEOPLE[m.recipient.key][2], de.TIMES[m.time], de.noun_phrase(m.thing, "acc"))
    return de.predicate(m.subject, m.verb, m.tense, middle).stated(m)


@express.register
def compare(m: say.Compare) -> str:
    verb = "sind" if de.gender(m.thing) == "p" else "ist"
    rest = f"{de.ADJECTIVES[m.adjective][2]} als {de.noun_phrase(m.other, 'nom')}"
    return de.Clause(de.noun_phrase(m.thing, "nom"), verb, rest).stated(m)


@express.register
def age(m: say.Age) -> str:
    years = "Jahre" if m.years > 1 else "Jahr"
    return f"{de.nominative(m.subject)} {de.finite('be', m.subject)} {de.NUMBERS[m.years]} {years} alt"


@express.register
def contents(m: say.Contents) -> str:
    verb = "sind" if de.gender(m.thing) == "p" else "ist"
    thing = de.noun_phrase(m.thing, "nom")
    return de.Clause(de.SURFACES[m.where], verb, thing).stated(m)


@express.register
def reserve(m: say.Reserve) -> str:
    if m.clock is None:
        nights = "eine Nacht" if m.count == 1 else f"{de.NUMBERS[m.count]} Nächte"
        return f"ich möchte ein Zimmer für {nights} reservieren"
    day = de.TIMES[m.day].removeprefix("am ")
    return f"ich möchte für {day} {de.clock(m.clock)} einen Tisch für {de.NUMBERS[m.count]} Personen reservieren"


@express.register
def because(m: say.Because) -> str:
    reason = state_clause(m.reason) if isinstance(m.reason, say.State) else weather_clause(m.reason)
    return f"{express(m.act)}, weil {reason.verb_last()}"


@express.register
def if_(m: say.If) -> str:
    weather = msgspec.structs.replace(m.weather, tense="progressive")  # the present speaks of the future here
    return f"wenn {weather_clause(weather).verb_last()}, {act_clause(m.act).verb_first()}"


@express.register(say.But)
@express.register(say.And)
def joined(m: say.But | say.And) -> str:
    conjunction = ", aber" if isinstance(m, say.But) else " und"
    return f"{express(m.first)}{conjunction} {express(m.second)}"
