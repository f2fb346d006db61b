"""The embedded phrasebook: how much it holds, and that what it says is right."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from train.phrasebook import LANGUAGES, pairs
from train.phrasebook.english import realise as english
from train.phrasebook.generate import EVERYDAY, FRAMES, REALISERS, TRAVEL
from train.phrasebook.meaning import Meaning

SCRIPTS = {
    "de": r"[A-Za-zÄÖÜäöüß ,.?]+",
    "fr": r"[A-Za-zÀÂÇÈÉÊÎÔàâçèéêîôûùœ ,.?'-]+",
    "ja": r"[぀-ヿ一-鿿、。々]+",
    "ru": r"[А-Яа-яЁё ,.?—-]+",
    "zh": r"[一-鿿，。？]+",
}

# Blocks of English | German, French | Japanese, Russian | Chinese, checked by hand.
GOLDEN = """
I bought two red shirts yesterday. | Ich habe gestern zwei rote Hemden gekauft.
J'ai acheté deux chemises rouges hier. | 私は昨日赤いシャツを二枚買いました。 | Вчера я купила две красные рубашки.
我昨天买了两件红色的衬衫。

He will buy five blue sweaters tomorrow. | Er kauft morgen fünf blaue Pullover. | Il achètera cinq pulls bleus demain.
彼は明日青いセーターを五枚買います。 | Завтра он купит пять синих свитеров. | 他明天买五件蓝色的毛衣。

My mother is waiting for my brother at the station now. | Meine Mutter wartet gerade am Bahnhof auf meinen Bruder.
Ma mère attend mon frère à la gare en ce moment. | 母は今駅で兄を待っています。
Сейчас моя мать ждёт моего брата на вокзале. | 我妈妈现在正在火车站等我哥哥。

I met my friend yesterday. | Ich habe gestern meinen Freund getroffen. | J'ai rencontré mon ami hier.
私は昨日友達に会いました。 | Вчера я встретил своего друга. | 我昨天跟我朋友见了面。

Will you call Anna tonight? | Rufen Sie heute Abend Anna an? | Est-ce que vous appellerez Anna ce soir ?
今夜アンナに電話しますか。 | Вы сегодня вечером позвоните Анне? | 您今天晚上给安娜打电话吗？

She went to the church last week. | Sie ist letzte Woche in die Kirche gegangen.
Elle est allée à l'église la semaine dernière. | 彼女は先週教会へ行きました。 | На прошлой неделе она ходила в церковь.
她上个星期去了教堂。

My daughter didn't eat an apple yesterday. | Meine Tochter hat gestern keinen Apfel gegessen.
Ma fille n'a pas mangé de pomme hier. | 娘は昨日りんごを食べませんでした。 | Вчера моя дочь не ела яблоко.
我女儿昨天没吃苹果。

My father has to buy a new coat tomorrow. | Mein Vater muss morgen einen neuen Mantel kaufen.
Mon père doit acheter un nouveau manteau demain. | 父は明日新しいコートを買わなければなりません。
Завтра мой отец должен купить новое пальто. | 我爸爸明天得买一件新大衣。

Where did you buy the black hat? | Wo hast du den schwarzen Hut gekauft? | Où est-ce que tu as acheté le chapeau noir ?
どこで黒い帽子を買いましたか。 | Где ты купил чёрную шляпу? | 你是在哪儿买的黑色的帽子？

I would like two cups of coffee and a piece of cake, please.
Ich hätte gern zwei Tassen Kaffee und ein Stück Kuchen, bitte.
Je voudrais deux tasses de café et un morceau de gâteau, s'il vous plaît.
コーヒーを二杯とケーキを一切れお願いします。 | Мне, пожалуйста, две чашки кофе и кусок торта.
我想要两杯咖啡和一块蛋糕。

My daughter doesn't have new shoes. | Meine Tochter hat keine neuen Schuhe. | Ma fille n'a pas de nouvelles chaussures.
娘は新しい靴を持っていません。 | У моей дочери нет новых туфель. | 我女儿没有新鞋。

My brother has two black dogs. | Mein Bruder hat zwei schwarze Hunde. | Mon frère a deux chiens noirs.
兄は黒い犬を二匹飼っています。 | У моего брата две чёрные собаки. | 我哥哥有两只黑色的狗。

We have three children. | Wir haben drei Kinder. | Nous avons trois enfants. | 私たちには子供が三人います。
У нас трое детей. | 我们有三个孩子。

I need a new camera. | Ich brauche eine neue Kamera. | J'ai besoin d'un nouvel appareil photo.
私には新しいカメラが必要です。 | Мне нужен новый фотоаппарат. | 我需要一台新相机。

My sister sent the teacher a letter last week. | Meine Schwester hat dem Lehrer letzte Woche einen Brief geschickt.
Ma sœur a envoyé une lettre au professeur la semaine dernière. | 姉は先週先生に手紙を送りました。
На прошлой неделе моя сестра отправила учителю письмо. | 我姐姐上个星期给老师寄了一封信。

The post office is next to the school. | Die Post ist neben der Schule. | La poste est à côté de l'école.
郵便局は学校の隣にあります。 | Почта находится рядом со школой. | 邮局在学校旁边。

The museum opens at half past nine tomorrow. | Das Museum öffnet morgen um halb zehn.
Le musée ouvre à neuf heures et demie demain. | 博物館は明日の九時半に開きます。
Завтра музей открывается в половине десятого. | 博物馆明天九点半开门。

My son is twenty-one years old. | Mein Sohn ist einundzwanzig Jahre alt. | Mon fils a vingt et un ans.
息子は二十一歳です。 | Моему сыну двадцать один год. | 我儿子二十一岁。

He is two years old. | Er ist zwei Jahre alt. | Il a deux ans. | 彼は二歳です。 | Ему два года. | 他两岁。

There are three books on the table. | Auf dem Tisch sind drei Bücher. | Il y a trois livres sur la table.
テーブルの上に本が三冊あります。 | На столе три книги. | 桌子上有三本书。

My mother was a teacher. | Meine Mutter war Lehrerin. | Ma mère était professeure. | 母は教師でした。
Моя мать была учительницей. | 我妈妈以前是老师。

The shoes are more expensive than the jacket. | Die Schuhe sind teurer als die Jacke.
Les chaussures sont plus chères que la veste. | 靴はジャケットより高いです。 | Туфли дороже, чем куртка. | 鞋比夹克贵。

Anna stayed in Moscow for two weeks. | Anna ist zwei Wochen in Moskau geblieben.
Anna est restée deux semaines à Moscou. | アンナはモスクワに二週間滞在しました。 | Анна провела в Москве две недели.
安娜在莫斯科待了两个星期。

It didn't rain in Beijing yesterday. | Es hat gestern in Peking nicht geregnet. | Il n'a pas plu à Pékin hier.
昨日北京で雨は降りませんでした。 | Вчера в Пекине не было дождя. | 昨天北京没下雨。

Could you bring us a towel, please? | Könnten Sie uns bitte ein Handtuch bringen?
Pourriez-vous nous apporter une serviette, s'il vous plaît ? | 私たちにタオルを一枚持ってきていただけますか。
Не могли бы вы принести нам полотенце? | 请给我们拿一条毛巾，好吗？

My sister won't go to the park tonight because she is tired.
Meine Schwester geht heute Abend nicht in den Park, weil sie müde ist.
Ma sœur n'ira pas au parc ce soir parce qu'elle est fatiguée. | 姉は疲れているので、今夜公園へ行きません。
Сегодня вечером моя сестра не пойдёт в парк, потому что она устала. | 我姐姐今天晚上不去公园，因为她很累。

If it rains tomorrow, I will go to the museum. | Wenn es morgen regnet, gehe ich ins Museum.
S'il pleut demain, j'irai au musée. | 明日雨が降ったら、私は博物館へ行きます。
Если завтра будет дождь, я пойду в музей. | 如果明天下雨，我就去博物馆。

Martin likes dogs, but he doesn't like cats. | Martin mag Hunde, aber er mag keine Katzen.
Martin aime les chiens, mais il n'aime pas les chats. | マーティンは犬が好きですが、猫は好きではありません。
Мартин любит собак, но он не любит кошек. | 马丁喜欢狗，但是他不喜欢猫。
"""
GOLDEN_BLOCKS = [block.replace("\n", " | ").split(" | ") for block in GOLDEN.strip().split("\n\n")]


@pytest.fixture(scope="module")
def corpora() -> dict[str, list[tuple[str, str]]]:
    return {language: pairs(language, 25_000) for language in LANGUAGES}


@pytest.fixture(scope="module")
def meanings() -> dict[str, list[Meaning]]:
    """All that the phrasebook can say, by its English."""
    said: dict[str, list[Meaning]] = {}
    for _, enumerate_meanings in FRAMES:
        for meaning in enumerate_meanings():
            said.setdefault(english(meaning), []).append(meaning)
    return said


@pytest.mark.parametrize("language", LANGUAGES)
def test_25000_pairs_are_drawn_with_distinct_sources(corpora, language):
    drawn = corpora[language]
    assert len(drawn) == len({source for source, _ in drawn}) == 25_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_sources_are_written_in_the_script_of_their_language(corpora, language):
    strange = [source for source, _ in corpora[language] if not re.fullmatch(SCRIPTS[language], source)]
    assert strange == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_sources_have_no_gap_left_by_an_absent_form(corpora, language):
    gap = re.compile(r"  |(^| )-( |$)|^ | $|[,.?。？，、] ?[,.。，、]")
    assert [source for source, _ in corpora[language] if gap.search(source)] == []


def test_french_words_that_run_together_are_written_together(corpora):
    apart = re.compile(r"\b(je|me|ne|de|le|la|que) [aeiouyéèêœhAE]|\b(de|à) les? |\bsi il", re.IGNORECASE)
    assert [source for source, _ in corpora["fr"] if apart.search(source)] == []


def test_english_is_well_formed(corpora):
    english_side = {target for drawn in corpora.values() for _, target in drawn}
    right = re.compile(r"[A-Z][A-Za-z ,'-]*[a-zA-Z][.?]")
    wrong_article = re.compile(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]")
    wrong_verb = re.compile(
        r"(^|but |because |, )((he|she|Anna|Martin|it) (are|do|have|don't|were|am)|(I|we|they) (is|does|has))\b"
        r"|\b(didn't|doesn't|don't|won't) \w+(ed|ought)\b(?<!need)",
        re.IGNORECASE,
    )
    starts = re.compile(r"(am|is|are|was|were|do|does|did|will|can|could|what|where|when|how|excuse)\b", re.IGNORECASE)
    for sentence in english_side:
        assert right.fullmatch(sentence), sentence
        assert not wrong_article.search(sentence), sentence
        assert not wrong_verb.search(sentence), sentence
        assert sentence.endswith("?") == bool(starts.match(sentence)), sentence


def test_english_sentences_are_short_with_some_of_two_clauses(corpora):
    lengths = sorted(len(target.split()) for _, target in corpora["de"])
    assert lengths[len(lengths) // 2] in (7, 8)
    assert lengths[0] >= 3
    assert 12 <= lengths[-1] <= 17
    two_clauses = sum(bool(re.search(r" because |, but |^If ", target)) for _, target in corpora["de"])
    assert two_clauses > 1_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_vocabulary_is_small(corpora, language):
    assert len({word for _, target in corpora[language] for word in re.findall(r"[a-z'-]+", target.lower())}) < 500


def test_the_same_sentence_has_the_same_english_in_every_language(corpora):
    """The languages draw the same meanings in the same order, so they share nearly all of their English."""
    english_sides = [{target for _, target in drawn} for drawn in corpora.values()]
    assert len(set.intersection(*english_sides)) > 20_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_source_never_has_two_english_sides(language, meanings):
    told: dict[str, str] = {}
    for target, said in list(meanings.items())[::5]:
        for meaning in said:
            assert told.setdefault(REALISERS[language](meaning), target) == target


def test_a_seed_draws_the_same_sentences_in_every_process():
    code = "from train.phrasebook import pairs; print(pairs('fr', 300, 5))"
    run = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, encoding="utf8", check=True)
    assert run.stdout.strip() == str(pairs("fr", 300, 5))


def test_another_seed_draws_other_sentences():
    assert pairs("ru", 300, 1) != pairs("ru", 300, 2)


def test_fewer_sentences_are_the_first_of_more(corpora):
    assert pairs("zh", 50) == corpora["zh"][:50]


def test_no_sentences_are_drawn_for_a_count_of_zero():
    assert pairs("ja", 0) == []


def test_an_unknown_language_is_refused_by_name():
    with pytest.raises(ValueError, match="'xx'"):
        pairs("xx", 10)


def test_more_sentences_than_there_are_is_refused_naming_the_language():
    with pytest.raises(ValueError, match=r"'zh'.*holds"):
        pairs("zh", 10_000_000)


@pytest.mark.parametrize("block", GOLDEN_BLOCKS, ids=lambda block: block[0])
def test_golden_sentences(block, meanings):
    target, *sources = block
    for language, source in zip(("de", "fr", "ja", "ru", "zh"), sources, strict=True):
        assert source in [REALISERS[language](meaning) for meaning in meanings[target]]


def test_travellers_say_what_is_not_everyday() -> None:
    assert {*TRAVEL} | {*EVERYDAY} == {*FRAMES} and not {*TRAVEL} & {*EVERYDAY}
    travel, everyday = ({source for source, _ in pairs("de", 2000, frames=frames)} for frames in (TRAVEL, EVERYDAY))
    assert len(travel) == len(everyday) == 2000 and not travel & everyday
