"""Japanese words, counters and verb forms."""

from __future__ import annotations

from train.phrasebook.meaning import Act, State, Weather
from train.phrasebook.referent import Clock, NounPhrase, Person, Portion
from train.phrasebook.tables import numbers, table, words
from train.phrasebook.vocabulary import PLACE

# word and the counter it is counted with
NOUNS = table("""
bread: パン; cheese: チーズ; fish: 魚; meat: 肉; rice: ご飯; soup: スープ; chicken: 鶏肉; salad: サラダ; cake: ケーキ
vegetables: 野菜; coffee: コーヒー; tea: お茶; water: 水; milk: 牛乳; juice: ジュース; beer: ビール; wine: ワイン
apple: りんご 個; egg: 卵 個; banana: バナナ 本; sandwich: サンドイッチ つ; book: 本 冊; newspaper: 新聞 部
letter: 手紙 通; ticket: 切符 枚; map: 地図 枚; key: 鍵 本; phone: 携帯電話 台; bag: かばん つ
suitcase: スーツケース つ; umbrella: 傘 本; camera: カメラ 台; watch: 時計 つ; photo: 写真 枚; flower: 花 本
gift: プレゼント つ; menu: メニュー; bill: 伝票; fork: フォーク 本; spoon: スプーン 本; knife: ナイフ 本
towel: タオル 枚; blanket: 毛布 枚; shirt: シャツ 枚; jacket: ジャケット 着; coat: コート 着; dress: ドレス 着
hat: 帽子 つ; sweater: セーター 枚; shoes: 靴; dog: 犬 匹; cat: 猫 匹; child: 子供 人; son: 息子 人; daughter: 娘 人
friend: 友達 人; bicycle: 自転車 台; car: 車 台; cup: カップ つ; glass: グラス つ; time: 時間; money: お金; help: 助け
train: 電車; bus: バス; plane: 飛行機; taxi: タクシー; station: 駅; airport: 空港; hotel: ホテル; restaurant: レストラン
museum: 博物館; bank: 銀行; pharmacy: 薬局; hospital: 病院; market: 市場; supermarket: スーパー; park: 公園
school: 学校; post_office: 郵便局; cinema: 映画館; theater: 劇場; church: 教会; library: 図書館; beach: ビーチ
""")
MEASURES = words("cup: 杯; glass: 杯; bottle: 本; piece: 切れ")
# before a noun; at the end of a sentence, without です
ADJECTIVES = table("""
red: 赤い 赤い; blue: 青い 青い; white: 白い 白い; black: 黒い 黒い; green: 緑の 緑; new: 新しい 新しい; old: 古い 古い
big: 大きい 大きい; small: 小さい 小さい; beautiful: きれいな きれい; cheap: 安い 安い; expensive: 高い 高い
warm: 暖かい 暖かい; hot: 熱い 熱い; cold: 冷たい 冷たい; good: いい いい; tasty: おいしい おいしい; fresh: 新鮮な 新鮮
fast: 速い 速い
""")
# before ます, て-form, before ない, dictionary form
VERBS = table("""
eat: 食べ 食べて 食べ 食べる; drink: 飲み 飲んで 飲ま 飲む; buy: 買い 買って 買わ 買う; read: 読み 読んで 読ま 読む
write: 書き 書いて 書か 書く; lose: なくし なくして なくさ なくす; find: 見つけ 見つけて 見つけ 見つける
look_for: 探し 探して 探さ 探す; meet: 会い 会って 会わ 会う; wait_for: 待ち 待って 待た 待つ
call: 電話し 電話して 電話し 電話する; go: 行き 行って 行か 行く; work: 働き 働いて 働か 働く
cook: 料理し 料理して 料理し 料理する; swim: 泳ぎ 泳いで 泳が 泳ぐ; dance: 踊り 踊って 踊ら 踊る
sing: 歌い 歌って 歌わ 歌う; stay_home: 家にい 家にいて 家にい 家にいる
""")
SAME = words("ride: go; fly: go")
PEOPLE = words("""
I: 私; we: 私たち; he: 彼; she: 彼女; they: 彼ら; Anna: アンナ; Martin: マーティン; children: 子供たち; teacher: 先生
doctor: 医者; mother: 母; father: 父; sister: 姉; brother: 兄; son: 息子; daughter: 娘; friend: 友達; parents: 両親
""")
CITIES = words("Berlin: ベルリン; Paris: パリ; London: ロンドン; Tokyo: 東京; Moscow: モスクワ; Beijing: 北京")
DAYS = words("""
every_day: 毎日; often: よく; now: 今; today: 今日; yesterday: 昨日; last_week: 先週; last_night: 昨夜; tomorrow: 明日
next_week: 来週; tonight: 今夜; on_Monday: 月曜日; on_Saturday: 土曜日
""")
RELATIONS = words("next_to: 隣; opposite: 向かい; behind: 後ろ; in_front_of: 前; near: 近く")
SURFACES = words("""
on_table: テーブルの上; on_bed: ベッドの上; in_bag: かばんの中; in_suitcase: スーツケースの中; in_kitchen: 台所
in_car: 車の中
""")
LANGUAGES = words("""
English: 英語; German: ドイツ語; French: フランス語; Russian: ロシア語; Japanese: 日本語; Chinese: 中国語
""")
PROFESSIONS = words("doctor: 医者; teacher: 教師; cook: 料理人; student: 学生; engineer: エンジニア; actor: 俳優")
WEATHER = words("cold: 寒い; warm: 暖かい; hot: 暑い; windy: 風が強い")
# polite, polite and denied, before ので
STATES = {
    "tired": ("疲れています", "疲れていません", "疲れている"),
    "sick": ("病気です", "病気ではありません", "病気な"),
    "hungry": ("お腹が空いています", "お腹が空いていません", "お腹が空いている"),
    "thirsty": ("喉が渇いています", "喉が渇いていません", "喉が渇いている"),
    "busy": ("忙しいです", "忙しくありません", "忙しい"),
    "happy": ("幸せです", "幸せではありません", "幸せな"),
}
FALLING = words("rain: 雨; snow: 雪")
UNITS = words("day: 日間; night: 泊; week: 週間; month: か月")
NUMBERS = numbers("一 二 三 四 五 六 七 八 九 十 十一 十二 二十 二十一 三十 三十二 四十 四十五 五十 百")


def described(thing: NounPhrase) -> str:
    adjective = ADJECTIVES[thing.adjective][0] if thing.adjective else ""
    return adjective + NOUNS[thing.noun][0]


def amount(thing: NounPhrase) -> str:
    """Number and counter, which stand before the verb; nothing for a single thing."""
    return NUMBERS[thing.count] + NOUNS[thing.noun][1] if thing.count > 1 else ""


def portion(served: Portion) -> str:
    counter = MEASURES[served.measure] if served.measure else NOUNS[served.noun][1]
    return f"{NOUNS[served.noun][0]}を{NUMBERS[served.count]}{counter}"


def thing_or_portion(thing: NounPhrase | Portion) -> str:
    if isinstance(thing, Portion):
        return portion(thing)
    single = f"一{NOUNS[thing.noun][1]}" if thing.determiner == "a" else ""
    return f"{described(thing)}を{single}"


def clock(time: Clock) -> str:
    return f"{NUMBERS[time.hour]}時{'半' if time.half else ''}"


def topic(who: Person, particle: str = "は") -> str:
    """The person as what the sentence is about; the one spoken to goes without saying."""
    return f"{PEOPLE[who.key]}{particle}" if who.key in PEOPLE else ""


def when(day: str) -> str:
    """Days of the week take a particle, words like tomorrow do not."""
    return DAYS[day] + "に" if day in ("on_Monday", "on_Saturday") else DAYS.get(day, "")


def polite(adjective: str, negative: bool = False, past: bool = False) -> str:
    """An adjective or a noun as a polite predicate."""
    if adjective == "きれい" or not adjective.endswith("い"):  # きれい is a na-adjective
        return adjective + (("でした" if past else "です") if not negative else "ではありません" + "でした" * past)
    stem = "よ" if adjective == "いい" else adjective[:-1]
    if negative:
        return f"{stem}くありません{'でした' * past}"
    return f"{stem}かったです" if past else f"{adjective}です"


def masu(stem: str, tense: str, negative: bool) -> str:
    """The polite ending; the present also speaks of the future."""
    if tense == "past":
        return stem + ("ませんでした" if negative else "ました")
    return stem + ("ません" if negative else "ます")


def predicate_of(adjective: str, noun: str) -> str:
    """What is good of food is its taste."""
    return ADJECTIVES["tasty" if adjective == "good" and noun not in PLACE else adjective][1]


def verb_of(m: Act) -> tuple[str, ...]:
    soup = m.verb == "eat" and not isinstance(m.object, Person) and m.object and m.object.noun == "soup"
    return VERBS["drink" if soup else SAME.get(m.verb, m.verb)]  # soup is drunk


def verb_group(m: Act) -> str:
    """The verb with its modal, polite."""
    stem, te_form, before_nai, dictionary = verb_of(m)
    if m.modal == "must":
        return f"{before_nai}なければなりません"
    if m.modal == "can":
        return masu(f"{dictionary}ことができ", "present", m.negative)
    if m.modal == "want" and m.subject.person == 3:  # of others' wishes one can only speak as they show
        return masu(f"{stem}たがってい", "present", m.negative)
    if m.modal == "want":
        return polite(f"{stem}たい", m.negative)
    lasting = m.verb == "work" and m.tense == "present" and not m.time
    if m.tense == "progressive" or lasting:
        return masu(f"{te_form}い", "present", m.negative)
    return masu(stem, m.tense, m.negative)


def reason(m: State | Weather) -> str:
    """Before ので: because."""
    if isinstance(m, State):
        return STATES[m.state][2]
    return f"{FALLING[m.kind]}が降っている" if m.kind in FALLING else WEATHER[m.kind]
