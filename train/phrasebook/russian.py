"""Putting meanings into Russian."""

from __future__ import annotations

from functools import singledispatch

from train.phrasebook import meaning as say
from train.phrasebook import russian_verbs as verbs
from train.phrasebook import russian_words as ru
from train.phrasebook.referent import NounPhrase, Person
from train.phrasebook.tables import join, sentence

ASKED = {"what": "что", "where": "где", "when": "когда", "": ""}


def realise(meaning: say.Meaning) -> str:
    """The meaning as a Russian sentence."""
    return sentence(express(meaning), "?" if meaning.question else ".")


@singledispatch
def express(meaning: say.Meaning) -> str:
    """The meaning as a clause: no capital, no final mark."""
    raise NotImplementedError(type(meaning).__name__)


def timed(time: str, subject: str, rest: str, m: say.Meaning) -> str:
    """Time first, but after the subject in questions, and `often` always before the verb."""
    when = ru.TIMES.get(time, "")
    return join(subject, when, rest) if m.question or time == "often" else join(when, subject, rest)


def clause(who: Person, verb: str, rest: str, m: say.Meaning) -> str:
    return join(ru.PEOPLE[who.key][0], "не" if m.negative else "", verbs.finite(verb, who, "present"), rest)


def person_object(m: say.Act, person: Person) -> str:
    """In the case the verb wants; what is the subject's own is своё."""
    form = ru.PEOPLE[person.key][2 if m.verb == "call" else 3]
    return f"св{form[1:]}" if m.subject.key == "I" and form.startswith("мо") else form


def verb_group(m: say.Act) -> str:
    verb = m.verb
    if verb == "eat" and isinstance(m.object, NounPhrase) and m.object.determiner == "a":
        verb = "eat_up"
    no = "не" if m.negative else ""
    if not m.modal:
        return join(no, verbs.finite(verb, m.subject, m.tense, m.negative), "дома" if verb == "stay_home" else "")
    infinitive = verbs.VERBS[verb][9 if m.negative else 8]
    if m.modal == "must":
        return join(no, verbs.agreeing(("должен", "должна", "должны"), m.subject), infinitive)
    return join(no, verbs.finite(m.modal, m.subject, "present"), infinitive)


@express.register
def act(m: say.Act) -> str:
    thing = ""
    if isinstance(m.object, Person):
        thing = person_object(m, m.object)
    elif m.object:
        thing = ru.noun_phrase(m.object, "acc")
    to = (ru.PLACES[m.to][1] if m.to in ru.PLACES else ru.CITIES[m.to][0]) if m.to else ""
    by = ru.BY[m.by] if m.by and m.verb != "fly" else ""
    rest = join(verb_group(m), thing, ru.PLACES[m.at][2] if m.at else "", to, by)
    word = "куда" if m.asked == "where" and m.verb == "go" else ASKED[m.asked]
    return join(word, timed(m.time, ru.PEOPLE[m.subject.key][0], rest, m))


@express.register
def speak(m: say.Speak) -> str:
    adverb = "немного" if m.little else "не" if m.negative else ""
    verb = verbs.finite("speak", m.subject, "present")
    return join(ru.PEOPLE[m.subject.key][0], adverb, verb, ru.LANGUAGES[m.language])


@express.register
def stay(m: say.Stay) -> str:
    verb = verbs.finite("stay", m.subject, m.tense)
    return join(ru.PEOPLE[m.subject.key][0], verb, ru.CITIES[m.city][1], ru.duration(m.count, m.unit))


@express.register
def order(m: say.Order) -> str:
    items = " и ".join(ru.portion(served) for served in m.portions)
    return f"мне, пожалуйста, {items}" if m.full else f"{items}, пожалуйста"


@express.register
def find_way(m: say.FindWay) -> str:
    kind, place, genitive, *_ = ru.NOUNS[m.place]
    if m.kind == "near":
        return f"около {ru.NOUNS[m.near][2]} есть {place}"
    return {
        "where": f"где находится {place}",
        "nearest": f"извините, где {ru.adjective('nearest', kind)} {place}",
        "how": f"как дойти до {genitive}",
    }[m.kind]


@express.register
def located(m: say.Located) -> str:
    if m.relation in ("near", "opposite"):
        where = f"{'около' if m.relation == 'near' else 'напротив'} {ru.NOUNS[m.landmark][2]}"
    else:
        where = ru.beside({"next_to": "рядом с", "behind": "за", "in_front_of": "перед"}[m.relation], m.landmark)
    return join(ru.NOUNS[m.place][1], "не" if m.negative else "", "находится", where)


@express.register
def directions(m: say.Directions) -> str:
    sides = {"left": "налево", "right": "направо"}
    again = "снова " if m.side == m.side_then else ""
    first, then = ru.NOUNS[m.first][2], ru.NOUNS[m.then][2]
    return f"поверните у {first} {sides[m.side]}, а потом у {then} {again}{sides[m.side_then]}"


@express.register
def price(m: say.Price) -> str:
    thing, verb = ru.noun_phrase(m.thing), "стоят" if ru.gender(m.thing) == "p" else "стоит"
    return f"{thing} {verb} {ru.NUMBERS[m.euros]} евро" if m.euros else f"сколько {verb} {thing}"


@express.register
def have(m: say.Have) -> str:
    owner = f"у {ru.PEOPLE[m.subject.key][1]}"
    if m.negative:
        return f"{owner} нет {ru.noun_phrase(m.thing, 'gen')}"
    return join(owner, "есть" if m.thing.count == 1 else "", ru.noun_phrase(m.thing))


@express.register
def like(m: say.Like) -> str:
    what = ru.noun_phrase(m.thing, "acc") if m.thing else verbs.VERBS[m.activity][9]
    return clause(m.subject, "like", what, m)


@express.register
def need(m: say.Need) -> str:
    needed = {"m": "нужен", "f": "нужна", "n": "нужно", "p": "нужны"}[ru.gender(m.thing)]
    return join(ru.PEOPLE[m.subject.key][2], "не" if m.negative else "", needed, ru.noun_phrase(m.thing))


@express.register
def quality(m: say.Quality) -> str:
    tasty = m.adjective == "good" and m.thing.noun not in ru.PLACES
    degree = "не" if m.negative else {"": "", "very": "очень", "too": "слишком"}[m.degree]
    adjective = ru.adjective("tasty" if tasty else m.adjective, ru.gender(m.thing))
    return join(ru.noun_phrase(m.thing), degree, adjective)


@express.register
def state(m: say.State) -> str:
    if m.state == "thirsty":
        return clause(m.subject, "want", "пить", m)
    return join(ru.PEOPLE[m.subject.key][0], "не" if m.negative else "", verbs.agreeing(ru.STATES[m.state], m.subject))


@express.register
def weather(m: say.Weather) -> str:
    setting = join(ru.TIMES.get(m.time, ""), ru.CITIES[m.city][1] if m.city else "")
    be = {"progressive": "", "past": "было", "future": "будет"}[m.tense]
    if m.kind in ru.WEATHER:
        return join(setting, "не" if m.negative else "", be, ru.WEATHER[m.kind])
    falling, genitive = ru.FALLING[m.kind]
    if m.negative:
        return join(setting, f"не {be}" if be else "нет", genitive)
    verb = {"progressive": "идёт", "past": "шёл", "future": "будет"}[m.tense]
    return join(setting, verb, falling)


@express.register
def opening(m: say.Opening) -> str:
    verb, day = "открывается" if m.opens else "закрывается", ru.TIMES.get(m.day, "")
    place = ru.NOUNS[m.place][1]
    if m.clock is None:
        return join("во сколько", day, verb, place)
    return join(day, place, verb, ru.clock(m.clock))


@express.register
def departure(m: say.Departure) -> str:
    flies = m.vehicle == "plane"
    to, _, from_ = ru.CITIES[m.city]
    verb = ("вылетает" if flies else "отправляется") if m.leaves else ("прилетает" if flies else "прибывает")
    vehicle = f"{ru.NOUNS[m.vehicle][1]} {to if m.leaves else from_}"
    return f"{vehicle} {verb} {ru.clock(m.clock)}" if m.clock else f"во сколько {verb} следующий {vehicle}"


@express.register
def profession(m: say.Profession) -> str:
    forms, subject = ru.PROFESSIONS[m.profession], ru.PEOPLE[m.subject.key][0]
    no = "не" if m.negative else ""
    if m.tense == "past":
        return join(subject, no, verbs.past("был", m.subject), verbs.agreeing(forms[3:], m.subject))
    dash = "" if m.negative or m.question or m.subject == m.subject.pronoun else "—"
    return join(subject, dash, no, forms[2 if m.subject.plural else m.subject.gender == "f"])  # вы is one doctor


@express.register
def request(m: say.Request) -> str:
    verb = {"bring": "принести", "show": "показать", "give": "дать"}[m.verb]
    return f"не могли бы вы {verb} {'нам' if m.us else 'мне'} {ru.thing_or_portion(m.thing)}"


@express.register
def give(m: say.Give) -> str:
    rest = join(verbs.finite(m.verb, m.subject, m.tense), ru.PEOPLE[m.recipient.key][2], ru.noun_phrase(m.thing, "acc"))
    return timed(m.time, ru.PEOPLE[m.subject.key][0], rest, m)


@express.register
def compare(m: say.Compare) -> str:
    comparative = ru.ADJECTIVES["tasty" if m.adjective == "good" else m.adjective][2]
    return f"{ru.noun_phrase(m.thing)} {comparative}, чем {ru.noun_phrase(m.other)}"


@express.register
def age(m: say.Age) -> str:
    years = ru.plural_of(m.years, ("год", "года", "лет"))
    return f"{ru.PEOPLE[m.subject.key][2]} {ru.NUMBERS[m.years]} {years}"


@express.register
def contents(m: say.Contents) -> str:
    return join(ru.SURFACES[m.where], "есть" if m.question else "", ru.noun_phrase(m.thing))


@express.register
def reserve(m: say.Reserve) -> str:
    if m.clock is None:
        return f"я хотел бы забронировать номер на {ru.duration(m.count, 'night')}"
    people = f"{ru.NUMBERS[m.count]} {'человека' if m.count < 5 else 'человек'}"
    return f"я хотел бы забронировать столик на {people} на {ru.FOR_DAY[m.day]} {ru.clock(m.clock, 'на')}"


@express.register
def because(m: say.Because) -> str:
    return f"{express(m.act)}, потому что {express(m.reason)}"


@express.register
def if_(m: say.If) -> str:
    return f"если {express(m.weather)}, {express(m.act)}"


@express.register(say.But)
@express.register(say.And)
def joined(m: say.But | say.And) -> str:
    return f"{express(m.first)}, {'но' if isinstance(m, say.But) else 'а'} {express(m.second)}"
