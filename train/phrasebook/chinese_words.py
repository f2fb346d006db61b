"""Chinese words and measure words."""

from __future__ import annotations

from train.phrasebook.meaning import Meaning
from train.phrasebook.referent import Clock, NounPhrase, Portion
from train.phrasebook.tables import numbers, table, words
from train.phrasebook.vocabulary import CLOTHES, DRINK, PLACE

# word and its measure word
NOUNS = table("""
bread: 面包; cheese: 奶酪; fish: 鱼; meat: 肉; rice: 米饭; soup: 汤; chicken: 鸡肉; salad: 沙拉; cake: 蛋糕
vegetables: 蔬菜; coffee: 咖啡; tea: 茶; water: 水; milk: 牛奶; juice: 果汁; beer: 啤酒; wine: 葡萄酒; apple: 苹果 个
egg: 鸡蛋 个; banana: 香蕉 根; sandwich: 三明治 个; book: 书 本; newspaper: 报纸 份; letter: 信 封; ticket: 票 张
map: 地图 张; key: 钥匙 把; phone: 手机 部; bag: 包 个; suitcase: 行李箱 个; umbrella: 雨伞 把; camera: 相机 台
watch: 手表 块; photo: 照片 张; flower: 花 朵; gift: 礼物 份; menu: 菜单; bill: 账单; fork: 叉子 把; spoon: 勺子 把
knife: 刀 把; towel: 毛巾 条; blanket: 毯子 条; shirt: 衬衫 件; jacket: 夹克 件; coat: 大衣 件; dress: 连衣裙 条
hat: 帽子 顶; sweater: 毛衣 件; shoes: 鞋; dog: 狗 只; cat: 猫 只; child: 孩子 个; son: 儿子 个; daughter: 女儿 个
friend: 朋友 个; bicycle: 自行车 辆; car: 汽车 辆; cup: 杯子 个; glass: 玻璃杯 个; time: 时间; money: 钱; help: 帮助
train: 火车; bus: 公共汽车; plane: 飞机; taxi: 出租车; station: 火车站; airport: 机场; hotel: 酒店; restaurant: 餐厅
museum: 博物馆; bank: 银行; pharmacy: 药店; hospital: 医院; market: 市场; supermarket: 超市; park: 公园; school: 学校
post_office: 邮局; cinema: 电影院; theater: 剧院; church: 教堂; library: 图书馆; beach: 海滩
""")
MEASURES = words("cup: 杯; glass: 杯; bottle: 瓶; piece: 块")
# before a noun, as a predicate
ADJECTIVES = table("""
red: 红色的; blue: 蓝色的; white: 白色的; black: 黑色的; green: 绿色的; new: 新 新; old: 旧 旧; big: 大 大; small: 小 小
beautiful: 漂亮的 漂亮; cheap: 便宜的 便宜; expensive: 贵的 贵; warm: 暖和的 暖和; hot: 热 热; cold: 冰 凉; good: 好 好
fresh: 新鲜的 新鲜; fast: 快的 快
""")
# what comes before and after the aspect particle 了
VERBS = table("""
eat: 吃; drink: 喝; buy: 买; read: 看; write: 写; lose: 丢; find: 找到; look_for: 找; meet: 见 面; wait_for: 等
call: 打 电话; go: 去; work: 工作; cook: 做 饭; swim: 游 泳; dance: 跳 舞; sing: 唱 歌; stay_home: 待在家里
""")
COVERBS = words("meet: 跟; call: 给")
"""Verbs whose person stands before them."""
SAME = words("ride: go; fly: go")
PEOPLE = words("""
I: 我; we: 我们; you: 你; You: 您; he: 他; she: 她; they: 他们; Anna: 安娜; Martin: 马丁; children: 孩子们
teacher: 老师; doctor: 医生; mother: 我妈妈; father: 我爸爸; sister: 我姐姐; brother: 我哥哥
son: 我儿子; daughter: 我女儿; friend: 我朋友; parents: 我父母
""")
CITIES = words("Berlin: 柏林; Paris: 巴黎; London: 伦敦; Tokyo: 东京; Moscow: 莫斯科; Beijing: 北京")
BY = words("train: 坐火车; bus: 坐公共汽车; plane: 坐飞机; taxi: 坐出租车; car: 开车")
TIMES = words("""
every_day: 每天; often: 经常; now: 现在; today: 今天; yesterday: 昨天; last_week: 上个星期; last_night: 昨天晚上
tomorrow: 明天; next_week: 下个星期; tonight: 今天晚上; on_Monday: 星期一; on_Saturday: 星期六
""")
RELATIONS = words("next_to: 旁边; opposite: 对面; behind: 后面; in_front_of: 前面; near: 附近")
SURFACES = words(
    "on_table: 桌子上; on_bed: 床上; in_bag: 包里; in_suitcase: 行李箱里; in_kitchen: 厨房里; in_car: 汽车里"
)
LANGUAGES = words("English: 英语; German: 德语; French: 法语; Russian: 俄语; Japanese: 日语; Chinese: 汉语")
PROFESSIONS = words("doctor: 医生; teacher: 老师; cook: 厨师; student: 学生; engineer: 工程师; actor: 演员")
STATES = words("tired: 累; hungry: 饿; thirsty: 渴; busy: 忙; happy: 开心")
WEATHER = words("cold: 冷; warm: 暖和; hot: 热")
EVENTS = words("rain: 下雨; snow: 下雪; windy: 刮风")
UNITS = words("day: 天; night: 个晚上; week: 个星期; month: 个月")
NUMBERS = numbers("一 二 三 四 五 六 七 八 九 十 十一 十二 二十 二十一 三十 三十二 四十 四十五 五十 一百")


def number(count: int) -> str:
    """Before a measure word, where two is 两."""
    return "两" if count == 2 else NUMBERS[count]


def described(thing: NounPhrase) -> str:
    adjective = ADJECTIVES[thing.adjective][0] if thing.adjective else ""
    if thing.adjective in ("big", "small") and thing.noun in CLOTHES:
        adjective += "号的"  # of clothes it is the size
    return adjective + NOUNS[thing.noun][0]


def noun_phrase(thing: NounPhrase, bare: bool = False) -> str:
    """With number and measure word, also for a single thing unless `bare`: a denied or known one."""
    if thing.determiner != "a" or (bare and thing.count == 1):
        return described(thing)
    return number(thing.count) + NOUNS[thing.noun][1] + described(thing)


def portion(served: Portion) -> str:
    measure = MEASURES[served.measure] if served.measure else NOUNS[served.noun][1]
    return number(served.count) + measure + NOUNS[served.noun][0]


def thing_or_portion(thing: NounPhrase | Portion) -> str:
    return portion(thing) if isinstance(thing, Portion) else noun_phrase(thing)


def clock(time: Clock) -> str:
    return f"{number(time.hour)}点{'半' if time.half else ''}"


def stated(subject: str, verb: str, rest: str, m: Meaning, no: str = "不") -> str:
    """Subject, verb and rest; denied by `no`, asked by 吗."""
    return f"{subject}{no if m.negative else ''}{verb}{rest}{'吗' if m.question else ''}"


def predicate_of(adjective: str, noun: str) -> str:
    """What is good of food is its taste, named after eating or drinking."""
    if adjective == "good" and noun not in PLACE:
        return "好喝" if noun in (*DRINK, "soup") else "好吃"
    return ADJECTIVES[adjective][1]


def graded(quality: str, m: Meaning, degree: str = "") -> str:
    """An adjective as a predicate: a plain statement needs 很, a denial or a question does not."""
    if m.negative or m.question:
        return f"不{quality}" if m.negative else f"{quality}吗"
    return {"": f"很{quality}", "very": f"非常{quality}", "too": f"太{quality}了"}[degree]
