"""Putting meanings into English."""

from __future__ import annotations

from functools import singledispatch

from train.phrasebook import english_words as en
from train.phrasebook import meaning as say
from train.phrasebook.referent import Person
from train.phrasebook.tables import join, sentence


def clause(who: Person, verb: str, rest: str, m: say.Meaning, tense: str = "present", adverb: str = "") -> str:
    """Subject, verb and the rest, with the auxiliary that tense, denial or question calls for."""
    base, subject = en.BASES.get(verb, verb), en.person(who)
    third, past, ing = en.VERBS["go" if base == "go" else verb]
    if tense == "progressive":
        return copula(subject, en.be(who), join(ing, rest), m)
    if tense == "future":
        auxiliary = "won't" if m.negative else "will"
    else:
        singular = who.person == 3 and not who.plural
        auxiliary = "did" if tense == "past" else "does" if singular else "do"
        if not m.negative and not m.question:
            return join(subject, adverb, past if tense == "past" else third if singular else base, rest)
        auxiliary += "n't" if m.negative else ""
    return join(*((auxiliary, subject) if m.question else (subject, auxiliary)), adverb, base, rest)


def copula(subject: str, be_form: str, rest: str, m: say.Meaning) -> str:
    if m.question:
        return f"{be_form} {subject} {rest}"
    return f"{subject} {be_form} {'not ' if m.negative else ''}{rest}"


@singledispatch
def express(meaning: say.Meaning) -> str:
    """The meaning as a clause: no capital, no final mark."""
    raise NotImplementedError(type(meaning).__name__)


def realise(meaning: say.Meaning) -> str:
    """The meaning as an English sentence."""
    return sentence(express(meaning), "?" if meaning.question else ".")


@express.register
def act(m: say.Act) -> str:
    thing = en.person(m.object) if isinstance(m.object, Person) else en.noun_phrase(m.object) if m.object else ""
    to = (f"to {m.to}" if m.to[0].isupper() else f"to {en.place(m.to)}") if m.to else ""
    at = f"at {en.place(m.at)}" if m.at else ""
    adverb, time = ("often", "") if m.time == "often" else ("", m.time.replace("_", " "))
    rest = join(thing, to, f"by {m.by}" if m.by else "", at, time)
    if m.modal == "can":
        can = ("can", en.person(m.subject)) if m.question else (en.person(m.subject), "can't" if m.negative else "can")
        return join(*can, m.verb, rest)
    if m.modal:
        rest, verb = join("to", en.BASES.get(m.verb, m.verb), rest), {"want": "want", "must": "have"}[m.modal]
    else:
        verb = m.verb
    return join(m.asked, clause(m.subject, verb, rest, m, m.tense, adverb))


@express.register
def speak(m: say.Speak) -> str:
    return clause(m.subject, "speak", f"a little {m.language}" if m.little else m.language, m)


@express.register
def stay(m: say.Stay) -> str:
    unit = f"{en.NUMBERS[m.count]} {m.unit}{'s' if m.count > 1 else ''}"
    return clause(m.subject, "stay", f"in {m.city} for {unit}", m, m.tense)


@express.register
def order(m: say.Order) -> str:
    items = " and ".join(en.portion(served) for served in m.portions)
    return f"I would like {items}, please" if m.full else f"{items}, please"


@express.register
def find_way(m: say.FindWay) -> str:
    name = m.place.replace("_", " ")
    return {
        "where": f"where is the {name}",
        "nearest": f"excuse me, where is the nearest {name}",
        "how": f"how do I get to the {name}",
        "near": f"is there {en.article(name)} near {en.place(m.near)}",
    }[m.kind]


@express.register
def located(m: say.Located) -> str:
    return copula(en.place(m.place), "is", f"{en.RELATIONS[m.relation]} {en.place(m.landmark)}", m)


@express.register
def directions(m: say.Directions) -> str:
    again = "" if m.side != m.side_then else " again"
    return f"turn {m.side} at {en.place(m.first)} and then {m.side_then}{again} at {en.place(m.then)}"


@express.register
def price(m: say.Price) -> str:
    many = m.thing.plural
    if not m.euros:
        return f"how much {'do' if many else 'does'} {en.noun_phrase(m.thing)} cost"
    return f"{en.noun_phrase(m.thing)} {'cost' if many else 'costs'} {en.NUMBERS[m.euros]} euros"


@express.register
def have(m: say.Have) -> str:
    return clause(m.subject, "have", en.noun_phrase(m.thing), m)


@express.register
def like(m: say.Like) -> str:
    return clause(m.subject, "like", en.noun_phrase(m.thing) if m.thing else f"to {m.activity}", m)


@express.register
def need(m: say.Need) -> str:
    return clause(m.subject, "need", en.noun_phrase(m.thing), m)


@express.register
def quality(m: say.Quality) -> str:
    return copula(en.noun_phrase(m.thing), "are" if m.thing.plural else "is", join(m.degree, m.adjective), m)


@express.register
def state(m: say.State) -> str:
    return copula(en.person(m.subject), en.be(m.subject), m.state, m)


@express.register
def weather(m: say.Weather) -> str:
    rest = join(f"in {m.city}" if m.city else "", m.time.replace("_", " "))
    if m.kind in ("rain", "snow"):
        return clause(Person(key="it"), m.kind, rest, m, m.tense)
    if m.tense == "future":
        will = ("will", "it") if m.question else ("it", "won't" if m.negative else "will")
        return join(*will, "be", m.kind, rest)
    return copula("it", "was" if m.tense == "past" else "is", join(m.kind, rest), m)


@express.register
def opening(m: say.Opening) -> str:
    verb = "open" if m.opens else "close"
    if m.clock is None:
        return join("what time does", en.place(m.place), verb, m.day.replace("_", " "))
    return join(en.place(m.place), f"{verb}s", "at", en.clock(m.clock), m.day.replace("_", " "))


@express.register
def departure(m: say.Departure) -> str:
    verb, way = ("leave", "to") if m.leaves else ("arrive", "from")
    if m.clock is None:
        return f"what time does the next {m.vehicle} {way} {m.city} {verb}"
    return f"the {m.vehicle} {way} {m.city} {verb}s at {en.clock(m.clock)}"


@express.register
def profession(m: say.Profession) -> str:
    name = f"{m.profession}s" if m.subject.plural else en.article(m.profession)
    return copula(en.person(m.subject), en.be(m.subject, m.tense), name, m)


@express.register
def request(m: say.Request) -> str:
    return f"could you {m.verb} {'us' if m.us else 'me'} {en.thing_or_portion(m.thing)}, please"


@express.register
def give(m: say.Give) -> str:
    rest = join(en.person(m.recipient), en.noun_phrase(m.thing), m.time.replace("_", " "))
    return clause(m.subject, m.verb, rest, m, m.tense)


@express.register
def compare(m: say.Compare) -> str:
    verb = "are" if m.thing.plural else "is"
    return copula(en.noun_phrase(m.thing), verb, f"{en.COMPARATIVES[m.adjective]} than {en.noun_phrase(m.other)}", m)


@express.register
def age(m: say.Age) -> str:
    return f"{en.person(m.subject)} {en.be(m.subject)} {en.NUMBERS[m.years]} {'years' if m.years > 1 else 'year'} old"


@express.register
def contents(m: say.Contents) -> str:
    return copula("there", "are" if m.thing.plural else "is", f"{en.noun_phrase(m.thing)} {en.SURFACES[m.where]}", m)


@express.register
def reserve(m: say.Reserve) -> str:
    if m.clock is None:
        nights = f"{en.NUMBERS[m.count]} night{'s' if m.count > 1 else ''}"
        return f"I would like to reserve a room for {nights}"
    people, day = f"{en.NUMBERS[m.count]} people", m.day.replace("_", " ")
    return f"I would like to reserve a table for {people} at {en.clock(m.clock)} {day}"


@express.register
def because(m: say.Because) -> str:
    return f"{express(m.act)} because {express(m.reason)}"


@express.register
def if_(m: say.If) -> str:
    kind, time = m.weather.kind, m.weather.time.replace("_", " ")
    condition = f"it {en.VERBS[kind][0]}" if kind in ("rain", "snow") else f"it is {kind}"
    return f"if {condition} {time}, {express(m.act)}"


@express.register
def but(m: say.But) -> str:
    return f"{express(m.first)}, but {express(m.second)}"


@express.register
def and_(m: say.And) -> str:
    return f"{express(m.first)} and {express(m.second)}"
