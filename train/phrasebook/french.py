"""Putting meanings into French."""

from __future__ import annotations

from functools import singledispatch

import msgspec

from train.phrasebook import french_words as fr
from train.phrasebook import meaning as say
from train.phrasebook.referent import NounPhrase, Person
from train.phrasebook.tables import join, sentence

IT = Person(key="it")
ASKED = {"what": "qu'est-ce que", "where": "où est-ce que", "when": "quand est-ce que", "": "est-ce que"}


def realise(meaning: say.Meaning) -> str:
    """The meaning as a French sentence, with the French space before a question mark."""
    return sentence(fr.sandhi(express(meaning)), " ?" if meaning.question else ".")


@singledispatch
def express(meaning: say.Meaning) -> str:
    """The meaning as a clause: no capital, no final mark."""
    raise NotImplementedError(type(meaning).__name__)


def clause(who: Person, verb: str, rest: str, m: say.Meaning, tense: str = "present", adverb: str = "") -> str:
    pas = "pas" if m.negative else ""
    statement = join(fr.PEOPLE[who.key], fr.verb_group(who, verb, tense, pas, adverb), rest)
    return f"est-ce que {statement}" if m.question else statement


def copula(thing: NounPhrase, rest: str, m: say.Meaning) -> str:
    it = msgspec.structs.replace(IT, plural=thing.plural)
    statement = join(fr.noun_phrase(thing), fr.verb_group(it, "be", "present", "pas" if m.negative else ""), rest)
    return f"est-ce que {statement}" if m.question else statement


@express.register
def act(m: say.Act) -> str:
    thing = ""
    if isinstance(m.object, Person):
        thing = fr.PEOPLE[m.object.key]
    elif m.object:
        thing = fr.noun_phrase(m.object, m.negative)
    home = "à la maison" if m.verb == "stay_home" else ""
    to = f"à {fr.place(m.to) if m.to in fr.NOUNS else fr.CITIES[m.to]}" if m.to else ""
    by = fr.VEHICLES[m.by] if m.by else ""
    at = f"à {fr.place(m.at)}" if m.at else ""
    rest = join(thing, home, at, to, by, fr.TIMES.get(m.time, ""))
    verb = m.modal or m.verb
    if m.modal:
        rest = join(fr.infinitive(m.verb), rest)
    spoken = clause(m.subject, verb, rest, m, m.tense, "souvent" if m.time == "often" else "")
    return spoken.replace("est-ce que", ASKED[m.asked], 1)


@express.register
def speak(m: say.Speak) -> str:
    language = fr.LANGUAGES[m.language]
    return clause(m.subject, "speak", f"un peu {language}" if m.little else language, m)


@express.register
def stay(m: say.Stay) -> str:
    one, many = fr.UNITS[m.unit]
    length = one if m.count == 1 else f"{fr.NUMBERS[m.count]} {many}"
    return clause(m.subject, "stay", f"{length} à {fr.CITIES[m.city]}", m, m.tense)


@express.register
def order(m: say.Order) -> str:
    items = " et ".join(fr.portion(served) for served in m.portions)
    return f"je voudrais {items}, s'il vous plaît" if m.full else f"{items}, s'il vous plaît"


@express.register
def find_way(m: say.FindWay) -> str:
    place = fr.place(m.place)
    if m.kind == "near":
        one = fr.indefinite(NounPhrase(noun=m.place))
        return f"est-ce que il y a {one} près de {fr.place(m.near)}"
    nearest = "la plus proche" if fr.NOUNS[m.place][0] == "f" else "le plus proche"
    return {
        "where": f"où est {place}",
        "nearest": f"excusez-moi, où est {place} {nearest}",
        "how": f"comment est-ce que je peux aller à {place}",
    }[m.kind]


@express.register
def located(m: say.Located) -> str:
    rest = f"{fr.RELATIONS[m.relation]} {fr.place(m.landmark)}"
    return copula(NounPhrase(noun=m.place, determiner="the"), rest, m)


@express.register
def directions(m: say.Directions) -> str:
    sides = {"left": "à gauche", "right": "à droite"}
    again = "encore " if m.side == m.side_then else ""
    first, then = fr.place(m.first), fr.place(m.then)
    return f"tournez {sides[m.side]} à {first}, puis {again}{sides[m.side_then]} à {then}"


@express.register
def price(m: say.Price) -> str:
    thing, verb = fr.noun_phrase(m.thing), "coûtent" if m.thing.plural else "coûte"
    return f"{thing} {verb} {fr.NUMBERS[m.euros]} euros" if m.euros else f"combien {verb} {thing}"


@express.register
def have(m: say.Have) -> str:
    return clause(m.subject, "have", fr.noun_phrase(m.thing, m.negative), m)


@express.register
def like(m: say.Like) -> str:
    return clause(m.subject, "like", fr.generic(m.thing) if m.thing else fr.infinitive(m.activity), m)


@express.register
def need(m: say.Need) -> str:
    one = fr.indefinite(m.thing) if m.thing.determiner == "a" else fr.described(m.thing)
    return clause(m.subject, "have", f"besoin de {one}", m)


@express.register
def quality(m: say.Quality) -> str:
    degree = {"": "", "very": "très", "too": "trop"}[m.degree]
    return copula(m.thing, join(degree, fr.agreeing(m.adjective, m.thing)), m)


@express.register
def state(m: say.State) -> str:
    if m.state in ("hungry", "thirsty"):
        return clause(m.subject, "have", {"hungry": "faim", "thirsty": "soif"}[m.state], m)
    return clause(m.subject, "be", fr.agree(m.state, m.subject.gender, m.subject.plural), m)


@express.register
def weather(m: say.Weather) -> str:
    kinds = {"cold": "froid", "warm": "doux", "hot": "chaud", "windy": "de vent" if m.negative else "du vent"}
    verb = m.kind if m.kind in ("rain", "snow") else "make"
    rest = join(kinds.get(m.kind, ""), f"à {fr.CITIES[m.city]}" if m.city else "", fr.TIMES.get(m.time, ""))
    return clause(IT, verb, rest, m, m.tense)


@express.register
def opening(m: say.Opening) -> str:
    verb, day = "ouvre" if m.opens else "ferme", fr.TIMES.get(m.day, "")
    if m.clock is None:
        return join("à quelle heure", verb, fr.place(m.place), day)
    return join(fr.place(m.place), verb, fr.clock(m.clock), day)


@express.register
def departure(m: say.Departure) -> str:
    verb, way = ("part", "pour") if m.leaves else ("arrive", "de")
    city = f"{way} {fr.CITIES[m.city]}"
    if m.clock is None:
        return f"à quelle heure {verb} le prochain {fr.described(NounPhrase(noun=m.vehicle))} {city}"
    return f"{fr.place(m.vehicle)} {city} {verb} {fr.clock(m.clock)}"


@express.register
def profession(m: say.Profession) -> str:
    name = fr.PROFESSIONS[m.profession][m.subject.gender == "f"] + ("s" if m.subject.plural else "")
    return clause(m.subject, "was" if m.tense == "past" else "be", name, m)


@express.register
def request(m: say.Request) -> str:
    verb = {"bring": "apporter", "show": "montrer", "give": "donner"}[m.verb]
    return f"pourriez-vous {'nous' if m.us else 'me'} {verb} {fr.thing_or_portion(m.thing)}, s'il vous plaît"


@express.register
def give(m: say.Give) -> str:
    rest = join(fr.noun_phrase(m.thing), f"à {fr.PEOPLE[m.recipient.key]}", fr.TIMES[m.time])
    return clause(m.subject, m.verb, rest, m, m.tense)


@express.register
def compare(m: say.Compare) -> str:
    if m.adjective == "cheap":
        more = f"moins {fr.agreeing('expensive', m.thing)}"
    elif m.adjective == "good":
        more = fr.agreeing("better", m.thing)
    else:
        more = f"plus {fr.agreeing(m.adjective, m.thing)}"
    return copula(m.thing, f"{more} que {fr.noun_phrase(m.other)}", m)


@express.register
def age(m: say.Age) -> str:
    return clause(m.subject, "have", f"{fr.NUMBERS[m.years]} {'ans' if m.years > 1 else 'an'}", m)


@express.register
def contents(m: say.Contents) -> str:
    there = f"il y a {fr.noun_phrase(m.thing)} {fr.SURFACES[m.where]}"
    return f"est-ce que {there}" if m.question else there


@express.register
def reserve(m: say.Reserve) -> str:
    if m.clock is None:
        nights = "une nuit" if m.count == 1 else f"{fr.NUMBERS[m.count]} nuits"
        return f"je voudrais réserver une chambre pour {nights}"
    when = f"{fr.TIMES[m.day]} {fr.clock(m.clock)}"
    return f"je voudrais réserver une table pour {fr.NUMBERS[m.count]} personnes {when}"


@express.register
def because(m: say.Because) -> str:
    return f"{express(m.act)} parce que {express(m.reason)}"


@express.register
def if_(m: say.If) -> str:
    weather = msgspec.structs.replace(m.weather, tense="progressive")  # the present speaks of the future here
    return f"s'{express(weather)}, {express(m.act)}"


@express.register(say.But)
@express.register(say.And)
def joined(m: say.But | say.And) -> str:
    conjunction = ", mais" if isinstance(m, say.But) else " et"
    return f"{express(m.first)}{conjunction} {express(m.second)}"
