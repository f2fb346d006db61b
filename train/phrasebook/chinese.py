"""Putting meanings into Chinese."""

from __future__ import annotations

from functools import singledispatch

from train.phrasebook import chinese_words as zh
from train.phrasebook import meaning as say
from train.phrasebook.referent import NounPhrase, Person


def realise(meaning: say.Meaning) -> str:
    """The meaning as a Chinese sentence."""
    return express(meaning) + ("？" if meaning.question else "。")


@singledispatch
def express(meaning: say.Meaning) -> str:
    """The meaning as a clause, with 吗 where a question needs it, without final mark."""
    raise NotImplementedError(type(meaning).__name__)


def setting(m: say.Act) -> str:
    """What stands between the negation and the verb: where, by what means, with whom."""
    at = f"在{zh.NOUNS[m.at][0]}" if m.at else "在哪儿" if m.asked == "where" and m.verb != "go" else ""
    person = m.object if isinstance(m.object, Person) else None
    coverb = zh.COVERBS[m.verb] + zh.PEOPLE[person.key] if person and m.verb in zh.COVERBS else ""
    return at + (zh.BY[m.by] if m.by else "") + coverb


def target(m: say.Act) -> str:
    """What stands after the verb."""
    if m.to:
        return zh.NOUNS[m.to][0] if m.to in zh.NOUNS else zh.CITIES[m.to]
    if m.asked == "what":
        return "什么"
    if m.asked == "where" and m.verb == "go":
        return "哪儿"
    if isinstance(m.object, Person):
        return "" if m.verb in zh.COVERBS else zh.PEOPLE[m.object.key]
    return zh.noun_phrase(m.object, bare=m.negative) if m.object else ""


def predicate(m: say.Act) -> str:
    """All after subject and time, without 吗."""
    drunk = isinstance(m.object, NounPhrase) and m.object.noun == "soup" and m.verb == "eat"
    verb, *complement = zh.VERBS["drink" if drunk else zh.SAME.get(m.verb, m.verb)]
    after = "".join(complement) + target(m)
    modal = {"want": "想", "must": "得", "can": "会", "": ""}[m.modal]
    if m.tense == "past":
        if m.negative:
            return f"没{setting(m)}{verb}{after}"
        if m.verb == "work" and m.at:
            return f"{setting(m)}{verb}"
        counted = isinstance(m.object, NounPhrase) and m.object.determiner == "a"
        closing = m.question and not counted and m.asked != "what"
        return f"{setting(m)}{verb}{after}了" if closing else f"{setting(m)}{verb}了{after}"
    if m.tense == "progressive":
        ongoing = ("正" if m.time else "") + ("" if m.at else "在")
        return f"{ongoing}{setting(m)}{verb}{after}"
    return f"{'不' if m.negative else ''}{modal}{setting(m)}{verb}{after}"


@express.register
def act(m: say.Act) -> str:
    subject = zh.PEOPLE[m.subject.key]
    if m.asked == "where" and m.tense == "past" and m.object:
        return f"{subject}是在哪儿{zh.VERBS[m.verb][0]}的{target(m)}"
    time = "什么时候" if m.asked == "when" else zh.TIMES.get(m.time, "")
    return f"{subject}{time}{predicate(m)}{'吗' if m.question and not m.asked else ''}"


@express.register
def speak(m: say.Speak) -> str:
    rest = ("一点儿" if m.little else "") + zh.LANGUAGES[m.language]
    return zh.stated(zh.PEOPLE[m.subject.key], "会说", rest, m)


@express.register
def stay(m: say.Stay) -> str:
    verb = "待了" if m.tense == "past" else "待"
    where = f"{'' if m.tense == 'past' else '会'}在{zh.CITIES[m.city]}"
    return f"{zh.PEOPLE[m.subject.key]}{where}{verb}{zh.number(m.count)}{zh.UNITS[m.unit]}"


@express.register
def order(m: say.Order) -> str:
    return ("我想要" if m.full else "请来") + "和".join(zh.portion(served) for served in m.portions)


@express.register
def find_way(m: say.FindWay) -> str:
    place = zh.NOUNS[m.place][0]
    if m.kind == "near":
        return f"{zh.NOUNS[m.near][0]}附近有{place}吗"
    return {
        "where": f"{place}在哪儿",
        "nearest": f"请问，最近的{place}在哪儿",
        "how": f"去{place}怎么走",
    }[m.kind]


@express.register
def located(m: say.Located) -> str:
    where = zh.NOUNS[m.landmark][0] + zh.RELATIONS[m.relation]
    return zh.stated(zh.NOUNS[m.place][0], "在", where, m)


@express.register
def directions(m: say.Directions) -> str:
    sides = {"left": "左转", "right": "右转"}
    again = "再" if m.side == m.side_then else ""
    first, then = zh.NOUNS[m.first][0], zh.NOUNS[m.then][0]
    return f"在{first}{sides[m.side]}，然后在{then}{again}{sides[m.side_then]}"


@express.register
def price(m: say.Price) -> str:
    return zh.described(m.thing) + (f"{zh.number(m.euros)}欧元" if m.euros else "多少钱")


@express.register
def have(m: say.Have) -> str:
    thing = zh.noun_phrase(m.thing, bare=m.negative or m.question)
    return zh.stated(zh.PEOPLE[m.subject.key], "有", thing, m, no="没")


@express.register
def like(m: say.Like) -> str:
    what = zh.described(m.thing) if m.thing else "".join(zh.VERBS[m.activity])
    return zh.stated(zh.PEOPLE[m.subject.key], "喜欢", what, m)


@express.register
def need(m: say.Need) -> str:
    thing = zh.noun_phrase(m.thing, bare=m.negative)
    return zh.stated(zh.PEOPLE[m.subject.key], "需要", thing, m)


@express.register
def quality(m: say.Quality) -> str:
    return zh.described(m.thing) + zh.graded(zh.predicate_of(m.adjective, m.thing.noun), m, m.degree)


@express.register
def state(m: say.State) -> str:
    subject = zh.PEOPLE[m.subject.key]
    if m.state == "sick":
        return f"{subject}没生病" if m.negative else f"{subject}生病了{'吗' if m.question else ''}"
    return subject + zh.graded(zh.STATES[m.state], m)


@express.register
def weather(m: say.Weather) -> str:
    time, city = zh.TIMES.get(m.time, ""), zh.CITIES.get(m.city, "")
    if m.kind in zh.WEATHER:
        kind, place = zh.WEATHER[m.kind], city or "天气"
        if m.tense == "future":
            return zh.stated(time + place, "会", kind if m.negative or m.question else f"很{kind}", m)
        return time + place + zh.graded(kind, m)
    event = zh.EVENTS[m.kind]
    if m.tense == "future":
        return zh.stated(time + city, "会", event, m)
    if m.negative:
        return f"{time}{city}没{event}"
    return f"{time}{city}{f'{event}了' if m.tense == 'past' else f'在{event}'}{'吗' if m.question else ''}"


@express.register
def opening(m: say.Opening) -> str:
    clock = zh.clock(m.clock) if m.clock else "几点"
    return zh.NOUNS[m.place][0] + zh.TIMES.get(m.day, "") + clock + ("开门" if m.opens else "关门")


@express.register
def departure(m: say.Departure) -> str:
    city = f"去{zh.CITIES[m.city]}的" if m.leaves else f"从{zh.CITIES[m.city]}来的"
    verb = ("起飞" if m.vehicle == "plane" else "出发") if m.leaves else "到达"
    following, clock = ("", zh.clock(m.clock)) if m.clock else ("下一班", "几点")
    return f"{following}{city}{zh.NOUNS[m.vehicle][0]}{clock}{verb}"


@express.register
def profession(m: say.Profession) -> str:
    subject = zh.PEOPLE[m.subject.key] + ("以前" if m.tense == "past" else "")
    return zh.stated(subject, "是", zh.PROFESSIONS[m.profession], m)


@express.register
def request(m: say.Request) -> str:
    verb = {"bring": "拿", "show": "看看", "give": ""}[m.verb]
    return f"请给{'我们' if m.us else '我'}{verb}{zh.thing_or_portion(m.thing)}，好吗"


@express.register
def give(m: say.Give) -> str:
    past, recipient = "了" if m.tense == "past" else "", zh.PEOPLE[m.recipient.key]
    verb = {"give": f"给{past}{recipient}", "show": f"给{recipient}看{past}", "send": f"给{recipient}寄{past}"}[m.verb]
    return f"{zh.PEOPLE[m.subject.key]}{zh.TIMES[m.time]}{verb}{zh.noun_phrase(m.thing)}"


@express.register
def compare(m: say.Compare) -> str:
    adjective = zh.predicate_of(m.adjective, m.thing.noun)
    return f"{zh.described(m.thing)}比{zh.described(m.other)}{adjective}{'吗' if m.question else ''}"


@express.register
def age(m: say.Age) -> str:
    return f"{zh.PEOPLE[m.subject.key]}{zh.number(m.years)}岁"


@express.register
def contents(m: say.Contents) -> str:
    return zh.stated(zh.SURFACES[m.where], "有", zh.noun_phrase(m.thing, bare=m.question), m)


@express.register
def reserve(m: say.Reserve) -> str:
    if m.clock is None:
        return f"我想预订一个房间，住{zh.number(m.count)}个晚上"
    return f"我想预订一张{zh.TIMES[m.day]}{zh.clock(m.clock)}{zh.number(m.count)}个人的桌子"


@express.register
def because(m: say.Because) -> str:
    return f"{express(m.act)}，因为{express(m.reason)}"


@express.register
def if_(m: say.If) -> str:
    time, kind = zh.TIMES[m.weather.time], m.weather.kind
    condition = time + (zh.EVENTS[kind] if kind in zh.EVENTS else f"天气很{zh.WEATHER[kind]}")
    return f"如果{condition}，{zh.PEOPLE[m.act.subject.key]}就{predicate(m.act)}"


@express.register
def but(m: say.But) -> str:
    return f"{express(m.first)}，但是{express(m.second)}"


@express.register
def and_(m: say.And) -> str:
    return f"{express(m.first)}，{express(m.second)}"
