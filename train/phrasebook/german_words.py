"""German words, noun phrases and verb forms."""

from __future__ import annotations

from typing import Literal

import msgspec

from train.phrasebook.meaning import Meaning
from train.phrasebook.referent import Clock, NounPhrase, Person, Portion
from train.phrasebook.tables import join, numbers, table, words

Case = Literal["nom", "acc"]

# gender, singular, plural
NOUNS = table("""
bread: n Brot -; cheese: m Käse -; fish: m Fisch -; meat: n Fleisch -; rice: m Reis -; soup: f Suppe -
chicken: n Hähnchen -; salad: m Salat -; cake: m Kuchen -; vegetables: n Gemüse -; coffee: m Kaffee -; tea: m Tee -
water: n Wasser -; milk: f Milch -; juice: m Saft -; beer: n Bier -; wine: m Wein -; apple: m Apfel Äpfel
egg: n Ei Eier; banana: f Banane Bananen; sandwich: n Sandwich Sandwiches; book: n Buch Bücher
newspaper: f Zeitung Zeitungen; letter: m Brief Briefe; ticket: f Fahrkarte Fahrkarten; map: m Stadtplan Stadtpläne
key: m Schlüssel Schlüssel; phone: n Handy Handys; bag: f Tasche Taschen; suitcase: m Koffer Koffer
umbrella: m Regenschirm Regenschirme; camera: f Kamera Kameras; watch: f Uhr Uhren; photo: n Foto Fotos
flower: f Blume Blumen; gift: n Geschenk Geschenke; menu: f Speisekarte -; bill: f Rechnung -; fork: f Gabel Gabeln
spoon: m Löffel Löffel; knife: n Messer Messer; towel: n Handtuch Handtücher; blanket: f Decke Decken
shirt: n Hemd Hemden; jacket: f Jacke Jacken; coat: m Mantel Mäntel; dress: n Kleid Kleider; hat: m Hut Hüte
sweater: m Pullover Pullover; shoes: p - Schuhe; dog: m Hund Hunde; cat: f Katze Katzen; child: n Kind Kinder
son: m Sohn Söhne; daughter: f Tochter Töchter; friend: m Freund Freunde; bicycle: n Fahrrad Fahrräder
car: n Auto Autos; cup: f Tasse Tassen; glass: n Glas Gläser; bottle: f Flasche Flaschen; piece: n Stück Stück
time: f Zeit -; money: n Geld -; help: f Hilfe -; train: m Zug -; bus: m Bus -; plane: n Flugzeug -; taxi: n Taxi -
station: m Bahnhof -; airport: m Flughafen -; hotel: n Hotel -; restaurant: n Restaurant -; museum: n Museum -
bank: f Bank -; pharmacy: f Apotheke -; hospital: n Krankenhaus -; market: m Markt -; supermarket: m Supermarkt -
park: m Park -; school: f Schule -; post_office: f Post -; cinema: n Kino -; theater: n Theater -
church: f Kirche -; library: f Bibliothek -; beach: m Strand -
""")
# stem before an ending, form without one, comparative
ADJECTIVES = table("""
red: rot; blue: blau; white: weiß; black: schwarz; green: grün; new: neu neu; old: alt alt; big: groß groß größer
small: klein klein kleiner; beautiful: schön schön schöner; cheap: billig billig billiger; fast: - schnell schneller
expensive: teur teuer teurer; warm: warm warm wärmer; hot: heiß heiß heißer; cold: kalt kalt kälter
good: gut gut besser; fresh: frisch frisch
""")
# I, you (familiar), he or she, infinitive, participle, auxiliary, separable prefix or fixed complement
VERBS = table("""
eat: esse isst isst essen gegessen haben; drink: trinke trinkst trinkt trinken getrunken haben
buy: kaufe kaufst kauft kaufen gekauft haben; read: lese liest liest lesen gelesen haben
write: schreibe schreibst schreibt schreiben geschrieben haben
lose: verliere verlierst verliert verlieren verloren haben
find: finde findest findet finden gefunden haben; look_for: suche suchst sucht suchen gesucht haben
meet: treffe triffst trifft treffen getroffen haben; wait_for: warte wartest wartet warten gewartet haben
call: rufe rufst ruft rufen gerufen haben an; go: gehe gehst geht gehen gegangen sein
ride: fahre fährst fährt fahren gefahren sein; fly: fliege fliegst fliegt fliegen geflogen sein
work: arbeite arbeitest arbeitet arbeiten gearbeitet haben; cook: koche kochst kocht kochen gekocht haben
swim: schwimme schwimmst schwimmt schwimmen geschwommen sein; dance: tanze tanzt tanzt tanzen getanzt haben
sing: singe singst singt singen gesungen haben; stay: bleibe bleibst bleibt bleiben geblieben sein
stay_home: bleibe bleibst bleibt bleiben geblieben sein; have: habe hast hat haben gehabt haben
like: mag magst mag mögen; need: brauche brauchst braucht brauchen; speak: spreche sprichst spricht sprechen
give: gebe gibst gibt geben gegeben haben; show: zeige zeigst zeigt zeigen gezeigt haben
send: schicke schickst schickt schicken geschickt haben; want: will willst will wollen; must: muss musst muss müssen
can: kann kannst kann können; be: bin bist ist sind; was: war warst war waren; haben: habe hast hat haben
sein: bin bist ist sind
""")
# nominative, accusative, dative
PEOPLE = table("""
I: ich; we: wir; you: du; You: Sie; he: er; she: sie; they: sie; Anna: Anna Anna Anna; Martin: Martin Martin Martin
children: die_Kinder die_Kinder den_Kindern; teacher: der_Lehrer den_Lehrer dem_Lehrer
doctor: der_Arzt den_Arzt dem_Arzt; mother: meine_Mutter meine_Mutter; father: mein_Vater meinen_Vater
sister: meine_Schwester meine_Schwester; brother: mein_Bruder meinen_Bruder; son: mein_Sohn meinen_Sohn
daughter: meine_Tochter meine_Tochter; friend: mein_Freund meinen_Freund; parents: meine_Eltern meine_Eltern
""")
# to, at
PLACES = table("""
station: zum_Bahnhof am_Bahnhof; airport: zum_Flughafen am_Flughafen; hotel: ins_Hotel im_Hotel
restaurant: ins_Restaurant im_Restaurant; museum: ins_Museum im_Museum; bank: zur_Bank in_der_Bank
pharmacy: in_die_Apotheke in_der_Apotheke; hospital: ins_Krankenhaus im_Krankenhaus; market: auf_den_Markt auf_dem_Markt
supermarket: in_den_Supermarkt im_Supermarkt; park: in_den_Park im_Park; school: in_die_Schule in_der_Schule
post_office: zur_Post in_der_Post; cinema: ins_Kino im_Kino; theater: ins_Theater im_Theater
church: in_die_Kirche in_der_Kirche; library: in_die_Bibliothek in_der_Bibliothek; beach: an_den_Strand am_Strand
""")
CITIES = words("Berlin: Berlin; Paris: Paris; London: London; Tokyo: Tokio; Moscow: Moskau; Beijing: Peking")
TIMES = words("""
every_day: jeden_Tag; often: oft; now: gerade; today: heute; yesterday: gestern; last_week: letzte_Woche
last_night: gestern_Abend; tomorrow: morgen; next_week: nächste_Woche; tonight: heute_Abend; on_Monday: am_Montag
on_Saturday: am_Samstag
""")
RELATIONS = words("next_to: neben; opposite: gegenüber; behind: hinter; in_front_of: vor")
SURFACES = words("""
on_table: auf_dem_Tisch; on_bed: auf_dem_Bett; in_bag: in_der_Tasche; in_suitcase: im_Koffer
in_kitchen: in_der_Küche; in_car: im_Auto
""")
STATES = words("tired: müde; sick: krank; hungry: hungrig; thirsty: durstig; busy: beschäftigt; happy: glücklich")
WEATHER = words("cold: kalt; warm: warm; hot: heiß; windy: windig")
FALLING = table("rain: regnet geregnet regnen; snow: schneit geschneit schneien")
LANGUAGES = words("""
English: Englisch; German: Deutsch; French: Französisch; Russian: Russisch; Japanese: Japanisch; Chinese: Chinesisch
""")
# man, woman, several
PROFESSIONS = table("""
doctor: Arzt Ärztin Ärzte; teacher: Lehrer Lehrerin Lehrer; cook: Koch Köchin Köche
student: Student Studentin Studenten; engineer: Ingenieur Ingenieurin Ingenieure
actor: Schauspieler Schauspielerin Schauspieler
""")
UNITS = table("day: Tag Tage; night: Nacht Nächte; week: Woche Wochen; month: Monat Monate")
NUMBERS = numbers("""
ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig einundzwanzig dreißig zweiunddreißig vierzig
fünfundvierzig fünfzig hundert
""")
DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
}
DATIVE = {"m": "dem", "n": "dem", "f": "der"}
INDEFINITE = {"nom": {"m": "", "f": "e", "n": "", "p": "e"}, "acc": {"m": "en", "f": "e", "n": "", "p": "e"}}
"""What follows ein- and kein-."""
ENDINGS = {
    "strong": {"nom": {"m": "er", "f": "e", "n": "es", "p": "e"}, "acc": {"m": "en", "f": "e", "n": "es", "p": "e"}},
    "mixed": {"nom": {"m": "er", "f": "e", "n": "es", "p": "en"}, "acc": {"m": "en", "f": "e", "n": "es", "p": "en"}},
    "weak": {"nom": {"m": "e", "f": "e", "n": "e", "p": "en"}, "acc": {"m": "en", "f": "e", "n": "e", "p": "en"}},
}
"""Of adjectives: strong without an article, mixed after ein- and kein-, weak after der."""


class Clause(msgspec.Struct, frozen=True):
    """A German clause, whose finite verb goes second, first or last."""

    subject: str
    finite: str
    middle: str
    end: str = ""
    """Participle, infinitive or separable prefix."""

    def main(self) -> str:
        return join(self.subject, self.finite, self.middle, self.end)

    def verb_first(self) -> str:
        return join(self.finite, self.subject, self.middle, self.end)

    def verb_last(self) -> str:
        return join(self.subject, self.middle, self.end, self.finite)

    def stated(self, meaning: Meaning) -> str:
        """First in questions, second in statements."""
        return self.verb_first() if meaning.question else self.main()


def gender(thing: NounPhrase) -> str:
    many = thing.plural and thing.noun != "vegetables"  # Gemüse is a mass noun
    return "p" if many else NOUNS[thing.noun][0]


def noun_phrase(thing: NounPhrase, case: Case, negative: bool = False) -> str:
    """With its article, `kein` if `negative`, and adjective, declined."""
    kind = gender(thing)
    noun = NOUNS[thing.noun][2 if kind == "p" else 1]
    if negative and thing.determiner != "the":
        article, declension = f"kein{INDEFINITE[case][kind]}", "mixed"
    elif thing.determiner == "the":
        article, declension = DEFINITE[case][kind], "weak"
    elif thing.determiner == "some" or thing.count > 1:
        article, declension = NUMBERS[thing.count] if thing.count > 1 else "", "strong"
    else:
        article, declension = f"ein{INDEFINITE[case][kind]}", "mixed"
    adjective = ADJECTIVES[thing.adjective][0] + ENDINGS[declension][case][kind] if thing.adjective else ""
    return join(article, adjective, noun)


def portion(served: Portion) -> str:
    """In the accusative."""
    unit = noun_phrase(NounPhrase(noun=served.measure or served.noun, count=served.count), "acc")
    return join(unit, NOUNS[served.noun][1] if served.measure else "")


def thing_or_portion(thing: NounPhrase | Portion) -> str:
    """In the accusative."""
    return portion(thing) if isinstance(thing, Portion) else noun_phrase(thing, "acc")


def nominative(who: Person) -> str:
    return PEOPLE[who.key][0]


def definite(place: str, article: dict[str, str] = DEFINITE["nom"]) -> str:
    return f"{article[NOUNS[place][0]]} {NOUNS[place][1]}"


def dative(preposition: str, place: str) -> str:
    """The place after a preposition, run together with its article where German does (zum, am)."""
    phrase = f"{preposition} {definite(place, DATIVE)}"
    for apart, together in (("zu dem", "zum"), ("zu der", "zur"), ("an dem", "am")):
        phrase = phrase.replace(apart, together)
    return phrase


def near(place: str) -> str:
    """Near the place, which stands in the genitive."""
    gender, noun, _ = NOUNS[place]
    ending = "es" if noun.endswith("s") else "s"
    return f"in der Nähe der {noun}" if gender == "f" else f"in der Nähe des {noun}{ending}"


def clock(time: Clock) -> str:
    """German counts towards the coming hour: halb zehn is half past nine."""
    if not time.half:
        return f"um {NUMBERS[time.hour]} Uhr"
    coming = time.hour % 12 + 1
    return f"um halb {'eins' if coming == 1 else NUMBERS[coming]}"


def finite(verb: str, who: Person) -> str:
    """The present form; Sie takes that of several people, which but for sein is the infinitive."""
    slot = 3 if who.plural or who.key == "You" else who.person - 1
    return VERBS[verb][slot]


def predicate(who: Person, verb: str, tense: str, middle: str) -> Clause:
    """Present (also for what is planned) or perfect."""
    _, _, _, _, participle, auxiliary, *prefix = VERBS[verb]
    before = prefix[0] if prefix else ""
    if tense == "past":
        return Clause(nominative(who), finite(auxiliary, who), middle, before + participle)
    return Clause(nominative(who), finite(verb, who), middle, before)
