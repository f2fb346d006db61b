"""English words and noun phrases."""

from __future__ import annotations

from train.phrasebook.referent import Clock, NounPhrase, Person, Portion
from train.phrasebook.tables import join, numbers, table, words

# base: third person, past, -ing
VERBS = table("""
eat: eats ate eating; drink: drinks drank drinking; buy: buys bought buying; read: reads read reading
write: writes wrote writing; lose: loses lost losing; find: finds found finding; meet: meets met meeting
look_for: looks_for looked_for looking_for; wait_for: waits_for waited_for waiting_for; call: calls called calling
go: goes went going; work: works worked working; cook: cooks cooked cooking; swim: swims swam swimming
dance: dances danced dancing; sing: sings sang singing; stay_home: stays_at_home stayed_at_home staying_at_home
want: wants wanted wanting; have: has had having; like: likes liked liking; need: needs needed needing
speak: speaks spoke speaking; stay: stays stayed staying; open: opens opened opening; close: closes closed closing
leave: leaves left leaving; arrive: arrives arrived arriving; cost: costs cost costing; give: gives gave giving
show: shows showed showing; send: sends sent sending; rain: rains rained raining; snow: snows snowed snowing
""")
BASES = words("look_for: look_for; wait_for: wait_for; stay_home: stay_at_home; ride: go; fly: go")
PLURALS = words("child: children; knife: knives; watch: watches; dress: dresses; glass: glasses; sandwich: sandwiches")
COMPARATIVES = words("""
cheap: cheaper; expensive: more_expensive; beautiful: more_beautiful; big: bigger; small: smaller; fast: faster
warm: warmer; cold: colder; good: better
""")
RELATIONS = words("next_to: next_to; opposite: opposite; behind: behind; in_front_of: in_front_of; near: near")
SURFACES = words("""
on_table: on_the_table; on_bed: on_the_bed; in_bag: in_the_bag; in_suitcase: in_the_suitcase
in_kitchen: in_the_kitchen; in_car: in_the_car
""")
NUMBERS = numbers("""
one two three four five six seven eight nine ten eleven twelve twenty twenty-one thirty thirty-two forty forty-five
fifty one_hundred
""")
POSSESSED = ("mother", "father", "sister", "brother", "daughter", "son", "friend", "parents")


def person(who: Person) -> str:
    if who.key in POSSESSED:
        return f"my {who.key}"
    return f"the {who.key}" if who.key in ("children", "teacher", "doctor") else who.key.replace("You", "you")


def article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def plural(noun: str) -> str:
    return PLURALS.get(noun, f"{noun}s").replace("_", " ")


def noun_phrase(thing: NounPhrase) -> str:
    bare = thing.noun in ("shoes", "vegetables") or not thing.plural
    phrase = join(thing.adjective, thing.noun.replace("_", " ") if bare else plural(thing.noun))
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {phrase}"
    return {"a": article(phrase), "the": f"the {phrase}", "some": phrase}[thing.determiner]


def portion(served: Portion) -> str:
    unit = served.measure or served.noun
    amount = article(unit) if served.count == 1 else f"{NUMBERS[served.count]} {plural(unit)}"
    return f"{amount} of {served.noun}" if served.measure else amount


def thing_or_portion(thing: NounPhrase | Portion) -> str:
    return portion(thing) if isinstance(thing, Portion) else noun_phrase(thing)


def clock(time: Clock) -> str:
    return f"half past {NUMBERS[time.hour]}" if time.half else f"{NUMBERS[time.hour]} o'clock"


def place(key: str) -> str:
    return f"the {key}".replace("_", " ")


def be(who: Person, tense: str = "present") -> str:
    if tense == "past":
        return "were" if who.plural or who.person == 2 else "was"
    return "am" if who.key == "I" else "are" if who.plural or who.person == 2 else "is"
