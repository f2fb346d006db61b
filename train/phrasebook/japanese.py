"""Putting meanings into polite Japanese."""

from __future__ import annotations

from functools import singledispatch

from train.phrasebook import japanese_words as ja
from train.phrasebook import meaning as say
from train.phrasebook.referent import Person
from train.phrasebook.vocabulary import ANIMAL, RELATIVE


def realise(meaning: say.Meaning) -> str:
    """The meaning as a Japanese sentence; the particle か marks questions."""
    return f"{express(meaning)}{'か' if meaning.question else ''}。"


@singledispatch
def express(meaning: say.Meaning) -> str:
    """The meaning as a clause: no question particle, no final mark."""
    raise NotImplementedError(type(meaning).__name__)


def complements(m: say.Act) -> str:
    """All that stands between the topic and the verb."""
    parts = ["いつ" if m.asked == "when" else ja.when(m.time)]
    if m.asked == "where":
        parts.append("どこへ" if m.verb == "go" else "どこで")
    parts += [f"{ja.NOUNS[m.by][0]}で" if m.by else "", f"{ja.NOUNS[m.at][0]}で" if m.at else ""]
    if m.to:
        parts.append(f"{ja.NOUNS[m.to][0] if m.to in ja.NOUNS else ja.CITIES[m.to]}へ")
    if m.asked == "what":
        parts.append("何を")
    elif isinstance(m.object, Person):
        parts.append(ja.PEOPLE[m.object.key] + ("に" if m.verb in ("meet", "call") else "を"))
    elif m.object:
        parts.append(f"{ja.described(m.object)}を{ja.amount(m.object)}")
    return "".join(parts)


@express.register
def act(m: say.Act) -> str:
    return ja.topic(m.subject) + complements(m) + ja.verb_group(m)


@express.register
def speak(m: say.Speak) -> str:
    little = "少し" if m.little else ""
    return f"{ja.topic(m.subject)}{little}{ja.LANGUAGES[m.language]}を{ja.masu('話し', 'present', m.negative)}"


@express.register
def stay(m: say.Stay) -> str:
    length = ja.NUMBERS[m.count] + ja.UNITS[m.unit]
    length = "一日" if length == "一日間" else length
    verb = ja.masu("し" if m.unit == "night" else "滞在し", m.tense, False)
    return f"{ja.topic(m.subject)}{ja.CITIES[m.city]}に{length}{verb}"


@express.register
def order(m: say.Order) -> str:
    items = "と".join(ja.portion(served) for served in m.portions)
    return f"{items}{'お願いします' if m.full else 'ください'}"


@express.register
def find_way(m: say.FindWay) -> str:
    place = ja.NOUNS[m.place][0]
    if m.kind == "near":
        return f"{ja.NOUNS[m.near][0]}の近くに{place}があります"
    return {
        "where": f"{place}はどこです",
        "nearest": f"すみません、一番近い{place}はどこです",
        "how": f"{place}へはどうやって行きます",
    }[m.kind]


@express.register
def located(m: say.Located) -> str:
    where = f"{ja.NOUNS[m.landmark][0]}の{ja.RELATIONS[m.relation]}に"
    return f"{ja.NOUNS[m.place][0]}は{where}{'はありません' if m.negative else 'あります'}"


@express.register
def directions(m: say.Directions) -> str:
    sides = {"left": "左", "right": "右"}
    again = "もう一度" if m.side == m.side_then else ""
    first, then = ja.NOUNS[m.first][0], ja.NOUNS[m.then][0]
    return f"{first}で{sides[m.side]}に曲がって、それから{then}で{again}{sides[m.side_then]}に曲がってください"


@express.register
def price(m: say.Price) -> str:
    return f"{ja.described(m.thing)}は{f'{ja.NUMBERS[m.euros]}ユーロ' if m.euros else 'いくら'}です"


@express.register
def have(m: say.Have) -> str:
    noun, thing, amount = m.thing.noun, ja.described(m.thing), ja.amount(m.thing)
    if noun in RELATIVE:
        return f"{ja.topic(m.subject, 'には')}{thing}が{amount}{ja.masu('い', 'present', m.negative)}"
    if noun in ("time", "money"):
        return f"{ja.topic(m.subject, 'には')}{thing}が{ja.masu('あり', 'present', m.negative)}"
    verb = "飼ってい" if noun in ANIMAL else "持ってい"
    return f"{ja.topic(m.subject)}{thing}を{amount}{ja.masu(verb, 'present', m.negative)}"


@express.register
def like(m: say.Like) -> str:
    return ja.topic(m.subject) + liking(m, "が")


def liking(m: say.Like, particle: str) -> str:
    what = ja.described(m.thing) if m.thing else f"{ja.VERBS[m.activity][3]}の"
    return f"{what}{particle}{'好きではありません' if m.negative else '好きです'}"


@express.register
def need(m: say.Need) -> str:
    need = "は必要ありません" if m.negative else "が必要です"
    return f"{ja.topic(m.subject, 'には')}{ja.described(m.thing)}{need}"


@express.register
def quality(m: say.Quality) -> str:
    thing, adjective = ja.described(m.thing), ja.predicate_of(m.adjective, m.thing.noun)
    if m.degree == "too":
        return f"{thing}は{adjective.removesuffix('い')}すぎます"
    return f"{thing}は{'とても' if m.degree else ''}{ja.polite(adjective, m.negative)}"


@express.register
def state(m: say.State) -> str:
    return ja.topic(m.subject) + ja.STATES[m.state][m.negative]


@express.register
def weather(m: say.Weather) -> str:
    day, city = ja.DAYS.get(m.time, ""), ja.CITIES.get(m.city, "")
    if m.kind in ja.WEATHER:
        adjective = ja.WEATHER[m.kind]
        future = f"{adjective[:-1]}くない" if m.negative else adjective
        end = f"{future}でしょう" if m.tense == "future" else ja.polite(adjective, m.negative, m.tense == "past")
        setting = "の".join(part for part in (day, city) if part)
        return f"{setting}{'は' if setting else ''}{end}"
    falling = ja.FALLING[m.kind] + ("は" if m.negative else "が")
    end = {
        "progressive": ja.masu("降ってい", "present", m.negative),
        "past": ja.masu("降り", "past", m.negative),
        "future": f"{'降らない' if m.negative else '降る'}でしょう",
    }[m.tense]
    return f"{ja.when(m.time)}{f'{city}で' if city else ''}{falling}{end}"


@express.register
def opening(m: say.Opening) -> str:
    place, verb = ja.NOUNS[m.place][0], "開きます" if m.opens else "閉まります"
    if m.clock is None:
        return f"{place}は{f'{ja.DAYS[m.day]}は' if m.day else ''}何時に{verb}"
    return f"{place}は{f'{ja.DAYS[m.day]}の' if m.day else ''}{ja.clock(m.clock)}に{verb}"


@express.register
def departure(m: say.Departure) -> str:
    city = ja.CITIES[m.city] + ("行きの" if m.leaves else "からの") + ja.NOUNS[m.vehicle][0]
    verb = "出発します" if m.leaves else "到着します"
    return f"次の{city}は何時に{verb}" if m.clock is None else f"{city}は{ja.clock(m.clock)}に{verb}"


@express.register
def profession(m: say.Profession) -> str:
    return ja.topic(m.subject) + ja.polite(ja.PROFESSIONS[m.profession], m.negative, m.tense == "past")


@express.register
def request(m: say.Request) -> str:
    verb = {"bring": "持ってきていただけます", "show": "見せていただけます", "give": "くださいます"}[m.verb]
    return f"{'私たちに' if m.us else ''}{ja.thing_or_portion(m.thing)}{verb}"


@express.register
def give(m: say.Give) -> str:
    stem = {"give": "あげ", "show": "見せ", "send": "送り"}[m.verb]
    recipient, thing = ja.PEOPLE[m.recipient.key], ja.described(m.thing)
    return f"{ja.topic(m.subject)}{ja.when(m.time)}{recipient}に{thing}を{ja.masu(stem, m.tense, False)}"


@express.register
def compare(m: say.Compare) -> str:
    adjective = ja.polite(ja.predicate_of(m.adjective, m.thing.noun))
    return f"{ja.described(m.thing)}は{ja.described(m.other)}より{adjective}"


@express.register
def age(m: say.Age) -> str:
    return f"{ja.topic(m.subject)}{ja.NUMBERS[m.years]}歳です"


@express.register
def contents(m: say.Contents) -> str:
    return f"{ja.SURFACES[m.where]}に{ja.described(m.thing)}が{ja.amount(m.thing)}あります"


@express.register
def reserve(m: say.Reserve) -> str:
    if m.clock is None:
        return f"部屋を{ja.NUMBERS[m.count]}泊予約したいです"
    when = f"{ja.DAYS[m.day]}の{ja.clock(m.clock)}に"
    return f"{when}{ja.NUMBERS[m.count]}人用のテーブルを予約したいです"


@express.register
def because(m: say.Because) -> str:
    topic, action = ja.topic(m.act.subject), complements(m.act) + ja.verb_group(m.act)
    if isinstance(m.reason, say.State):
        return f"{topic}{ja.reason(m.reason)}ので、{action}"
    return f"{ja.reason(m.reason)}ので、{topic}{action}"


@express.register
def if_(m: say.If) -> str:
    kind = m.weather.kind
    if kind in ja.FALLING:
        condition = f"{ja.when(m.weather.time)}{ja.FALLING[kind]}が降ったら"
    else:
        condition = f"{ja.DAYS[m.weather.time]}{ja.WEATHER[kind][:-1]}かったら"
    return f"{condition}、{express(m.act)}"


@express.register
def but(m: say.But) -> str:
    second = m.second
    if isinstance(second, say.Like):
        rest = liking(second, "は")
    elif isinstance(second, say.Weather):
        rest = express(second)
    else:
        rest = express(second).removeprefix(ja.topic(second.subject, "には")).removeprefix(ja.topic(second.subject))
    return f"{express(m.first)}が、{rest}"


@express.register
def and_(m: say.And) -> str:
    first = express(m.first).removesuffix("ます") + "て"
    return f"{first}、{express(m.second)}"
