"""Russian words, their cases and noun phrases."""

from __future__ import annotations

from typing import Literal

from train.phrasebook.referent import Clock, NounPhrase, Portion
from train.phrasebook.tables import join, numbers, table, words
from train.phrasebook.vocabulary import ANIMAL

Case = Literal["nom", "gen", "acc"]

# gender (p: only plural); singular nominative, genitive, accusative; plural nominative, genitive
NOUNS = table("""
bread: m хлеб хлеба хлеб; cheese: m сыр сыра сыр; fish: f рыба рыбы рыбу; meat: n мясо мяса мясо
rice: m рис риса рис; soup: m суп супа суп; chicken: f курица курицы курицу; salad: m салат салата салат
cake: m торт торта торт; vegetables: p овощи овощей овощи; coffee: m кофе кофе кофе; tea: m чай чая чай
water: f вода воды воду; milk: n молоко молока молоко; juice: m сок сока сок; beer: n пиво пива пиво
wine: n вино вина вино; apple: n яблоко яблока яблоко яблоки яблок; egg: n яйцо яйца яйцо яйца яиц
banana: m банан банана банан бананы бананов; sandwich: m бутерброд бутерброда бутерброд бутерброды бутербродов
book: f книга книги книгу книги книг; newspaper: f газета газеты газету газеты газет
letter: n письмо письма письмо письма писем; ticket: m билет билета билет билеты билетов
map: f карта карты карту карты карт; key: m ключ ключа ключ ключи ключей; phone: m телефон телефона телефон
bag: f сумка сумки сумку; suitcase: m чемодан чемодана чемодан чемоданы чемоданов; umbrella: m зонт зонта зонт
camera: m фотоаппарат фотоаппарата фотоаппарат; watch: p часы часов часы
photo: f фотография фотографии фотографию фотографии фотографий; flower: m цветок цветка цветок цветы цветов
gift: m подарок подарка подарок; menu: n меню меню меню; bill: m счёт счёта счёт
fork: f вилка вилки вилку вилки вилок; spoon: f ложка ложки ложку ложки ложек; knife: m нож ножа нож
towel: n полотенце полотенца полотенце; blanket: n одеяло одеяла одеяло
shirt: f рубашка рубашки рубашку рубашки рубашек; jacket: f куртка куртки куртку куртки курток
coat: n пальто пальто пальто пальто пальто; dress: n платье платья платье платья платьев
hat: f шляпа шляпы шляпу шляпы шляп; sweater: m свитер свитера свитер свитеры свитеров; shoes: p туфли туфель туфли
dog: f собака собаки собаку собаки собак; cat: f кошка кошки кошку кошки кошек
child: m ребёнок ребёнка ребёнка дети детей; son: m сын сына сына сыновья сыновей
daughter: f дочь дочери дочь дочери дочерей; friend: m друг друга друга друзья друзей
bicycle: m велосипед велосипеда велосипед; car: f машина машины машину; cup: f чашка чашки чашку чашки чашек
glass: m стакан стакана стакан стаканы стаканов; bottle: f бутылка бутылки бутылку бутылки бутылок
piece: m кусок куска кусок куски кусков; time: n время времени время; money: p деньги денег деньги
help: f помощь помощи помощь; day: m день дня день дни дней; night: f ночь ночи ночь ночи ночей
week: f неделя недели неделю недели недель; month: m месяц месяца месяц месяцы месяцев; train: m поезд
bus: m автобус; plane: m самолёт; taxi: n такси; station: m вокзал вокзала; airport: m аэропорт аэропорта
hotel: f гостиница гостиницы; restaurant: m ресторан ресторана; museum: m музей музея; bank: m банк банка
pharmacy: f аптека аптеки; hospital: f больница больницы; market: m рынок рынка; supermarket: m супермаркет супермаркета
park: m парк парка; school: f школа школы; post_office: f почта почты; cinema: m кинотеатр кинотеатра
theater: m театр театра; church: f церковь церкви; library: f библиотека библиотеки; beach: m пляж пляжа
""")
# instrumental, to, at
PLACES = table("""
station: вокзалом на_вокзал на_вокзале; airport: аэропортом в_аэропорт в_аэропорту
hotel: гостиницей в_гостиницу в_гостинице; restaurant: рестораном в_ресторан в_ресторане
museum: музеем в_музей в_музее; bank: банком в_банк в_банке
pharmacy: аптекой в_аптеку в_аптеке; hospital: больницей в_больницу в_больнице; market: рынком на_рынок на_рынке
supermarket: супермаркетом в_супермаркет в_супермаркете; park: парком в_парк в_парке; school: школой в_школу в_школе
post_office: почтой на_почту на_почте; cinema: кинотеатром в_кинотеатр в_кинотеатре; theater: театром в_театр в_театре
church: церковью в_церковь в_церкви; library: библиотекой в_библиотеку в_библиотеке; beach: пляжем на_пляж на_пляже
""")
# stem, kind of ending, comparative
ADJECTIVES = table("""
red: красн hard; blue: син soft; white: бел hard; black: чёрн hard; green: зелён hard; new: нов hard; old: стар hard
big: больш stressed больше; small: маленьк velar меньше; beautiful: красив hard красивее; cheap: дешёв hard дешевле
expensive: дорог stressed дороже; warm: тёпл hard теплее; hot: горяч hushing; cold: холодн hard холоднее
good: хорош hushing; tasty: вкусн hard вкуснее; fresh: свеж hushing; fast: быстр hard быстрее; nearest: ближайш hushing
""")
ENDINGS = table("""
hard: ый ая ое ые ую ого ой ых; soft: ий яя ее ие юю его ей их; velar: ий ая ое ие ую ого ой их
stressed: ой ая ое ие ую ого ой их; hushing: ий ая ее ие ую его ей их
""")
"""Of adjectives: nominative masculine, feminine, neuter, plural; accusative feminine; genitive m., f., plural."""

# nominative, genitive (after a preposition), dative, accusative
PEOPLE = table("""
I: я меня мне; we: мы нас нам; you: ты тебя тебе; You: вы вас вам; he: он него ему; she: она неё ей; they: они них им
Anna: Анна Анны Анне Анну; Martin: Мартин Мартина Мартину Мартина; children: дети детей детям детей
teacher: учитель учителя учителю учителя; doctor: врач врача врачу врача
mother: моя_мать моей_матери моей_матери мою_мать; father: мой_отец моего_отца моему_отцу моего_отца
sister: моя_сестра моей_сестры моей_сестре мою_сестру; brother: мой_брат моего_брата моему_брату моего_брата
daughter: моя_дочь моей_дочери моей_дочери мою_дочь; son: мой_сын моего_сына моему_сыну моего_сына
friend: мой_друг моего_друга моему_другу моего_друга
parents: мои_родители моих_родителей моим_родителям моих_родителей
""")
# to, in, from
CITIES = table("""
Berlin: в_Берлин в_Берлине из_Берлина; Paris: в_Париж в_Париже из_Парижа; London: в_Лондон в_Лондоне из_Лондона
Tokyo: в_Токио в_Токио из_Токио; Moscow: в_Москву в_Москве из_Москвы; Beijing: в_Пекин в_Пекине из_Пекина
""")
BY = words("train: на_поезде; bus: на_автобусе; taxi: на_такси; car: на_машине")
TIMES = words("""
every_day: каждый_день; often: часто; now: сейчас; today: сегодня; yesterday: вчера; last_week: на_прошлой_неделе
last_night: вчера_вечером; tomorrow: завтра; next_week: на_следующей_неделе; tonight: сегодня_вечером
on_Monday: в_понедельник; on_Saturday: в_субботу
""")
FOR_DAY = words("tomorrow: завтра; tonight: сегодняшний_вечер; on_Monday: понедельник; on_Saturday: субботу")
SURFACES = words("""
on_table: на_столе; on_bed: на_кровати; in_bag: в_сумке; in_suitcase: в_чемодане; in_kitchen: на_кухне; in_car: в_машине
""")
LANGUAGES = words("""
English: по-английски; German: по-немецки; French: по-французски; Russian: по-русски; Japanese: по-японски
Chinese: по-китайски
""")
# man, woman, several; the same after был
PROFESSIONS = table("""
doctor: врач врач врачи врачом врачом врачами; cook: повар повар повара поваром поваром поварами
teacher: учитель учительница учителя учителем учительницей учителями
student: студент студентка студенты студентом студенткой студентами
engineer: инженер инженер инженеры инженером инженером инженерами
actor: актёр актриса актёры актёром актрисой актёрами
""")
# man, woman, several
STATES = table("""
tired: устал устала устали; sick: болен больна больны; hungry: голоден голодна голодны; busy: занят занята заняты
happy: счастлив счастлива счастливы
""")
WEATHER = words("cold: холодно; warm: тепло; hot: жарко; windy: ветрено")
FALLING = table("rain: дождь дождя; snow: снег снега")
NUMBERS = numbers("""
один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать двадцать двадцать_один тридцать
тридцать_два сорок сорок_пять пятьдесят сто
""")
COLLECTIVE = {2: "двое", 3: "трое", 4: "четверо"}
"""Of children."""
ORDINALS = (
    "первого второго третьего четвёртого пятого шестого седьмого восьмого девятого десятого одиннадцатого двенадцатого"
)


def gender(thing: NounPhrase) -> str:
    return "p" if thing.plural else NOUNS[thing.noun][0]


def adjective(key: str, gender: str, case: Case = "nom") -> str:
    stem, kind, *_ = ADJECTIVES[key]
    slot = "mfnp".index(gender)
    if case == "gen":
        slot = {"m": 5, "n": 5, "f": 6, "p": 7}[gender]
    elif case == "acc" and gender == "f":
        slot = 4
    return stem + ENDINGS[kind][slot]


def counted(noun: str, count: int, described_by: str = "") -> str:
    """After 2 to 4 the noun is genitive singular, after 5 and more genitive plural; adjectives too,
    but for feminine nouns after 2 to 4.
    """
    kind, _, genitive, _, _, many = NOUNS[noun]
    if noun == "child" and count in COLLECTIVE:
        return f"{COLLECTIVE[count]} {many}"
    few = count in (2, 3, 4)
    number = "две" if count == 2 and kind == "f" else NUMBERS[count]
    described = ""
    if described_by:
        described = adjective(described_by, "p", "nom" if few and kind == "f" else "gen")
    return join(number, described, genitive if few else many)


def duration(count: int, unit: str) -> str:
    """In the accusative."""
    one = {"m": "один", "f": "одну"}[NOUNS[unit][0]]
    return f"{one} {NOUNS[unit][3]}" if count == 1 else counted(unit, count)


def noun_phrase(thing: NounPhrase, case: Case = "nom") -> str:
    if thing.count > 1:
        return counted(thing.noun, thing.count, thing.adjective)
    kind, forms = gender(thing), NOUNS[thing.noun]
    if kind == "p" and forms[0] != "p":
        noun = forms[5 if case == "gen" or (case == "acc" and thing.noun in ANIMAL) else 4]
    else:
        noun = forms[{"nom": 1, "gen": 2, "acc": 3}[case]]
    return join(adjective(thing.adjective, kind, case) if thing.adjective else "", noun)


def portion(served: Portion) -> str:
    """In the accusative."""
    unit = served.measure or served.noun
    amount = NOUNS[unit][3] if served.count == 1 else counted(unit, served.count)
    return join(amount, NOUNS[served.noun][2] if served.measure else "")


def thing_or_portion(thing: NounPhrase | Portion) -> str:
    """In the accusative."""
    return portion(thing) if isinstance(thing, Portion) else noun_phrase(thing, "acc")


def beside(preposition: str, place: str) -> str:
    """A preposition with the instrumental; с is со before шк."""
    noun = PLACES[place][0]
    return f"{preposition}о {noun}" if preposition.endswith("с") and noun.startswith("шк") else f"{preposition} {noun}"


def plural_of(count: int, forms: tuple[str, str, str]) -> str:
    """год, года or лет; the last digit decides, but for eleven to nineteen."""
    last = 0 if 11 <= count <= 19 else count % 10
    return forms[0] if last == 1 else forms[1] if 2 <= last <= 4 else forms[2]


def clock(time: Clock, at: str = "в") -> str:
    """Russian counts towards the coming hour: в половине десятого is half past nine."""
    if time.half:
        return f"{at} {'половине' if at == 'в' else 'половину'} {ORDINALS.split()[time.hour % 12]}"
    hour = plural_of(time.hour, ("час", "часа", "часов"))
    return f"{at} {hour}" if time.hour == 1 else f"{at} {NUMBERS[time.hour]} {hour}"
