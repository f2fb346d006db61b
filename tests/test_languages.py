"""A text's language is found, also inside an English instruction."""

from __future__ import annotations

import pytest

from common.languages import LanguageIdentifier, language_name

SENTENCES = {
    "de": "Klopfe bitte an, bevor du hereinkommst!",
    "fr": "Il gouverna équitablement son royaume.",
    "ja": "トムは夜遅くまで部屋で音楽を聞いた。",
    "ru": "Почему вы вечно недовольны?",
    "zh": "明天有可能会下雨。",
}


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier(list(SENTENCES))


@pytest.mark.parametrize("code", SENTENCES)
def test_an_english_frame_does_not_hide_the_language(identifier: LanguageIdentifier, code: str) -> None:
    sentence, name = SENTENCES[code], language_name(code)
    for text in (
        sentence,
        f"Translate {name} to English:{sentence}",
        f"Translate the following text into English.\n\n{sentence}\n",
        f"{sentence}\n\nTranslate the text above.",
        f'What does "{sentence}" mean in English?',
    ):
        assert identifier.identify(text) == code, text


def test_a_long_frame_does_not_hide_a_short_question(identifier: LanguageIdentifier) -> None:
    frame = "You are a careful translator who answers in fluent English and never adds remarks. Translate: "
    assert identifier.identify(frame + "Hat Tom gelächelt?") == "de"


@pytest.mark.parametrize("code", ["ja", "ru", "zh"])
def test_another_script_needs_no_punctuation_around_it(identifier: LanguageIdentifier, code: str) -> None:
    assert identifier.identify(f"Please translate {SENTENCES[code]} into English") == code


@pytest.mark.parametrize(
    "text",
    [
        "Please knock before you come in.",
        "Summarise in one sentence: the river rose overnight, and the bridge was closed.",
        "Our guide in Tokyo (東京) told us that the old name of the city was Edo, and that few people there use it "
        "today, except for historians and for those who sell souvenirs to the tourists.",
    ],
)
def test_english_is_english(identifier: LanguageIdentifier, text: str) -> None:
    assert identifier.identify(text) == "en"


@pytest.mark.parametrize("text", ["", " \n", "12 + 30 = ?", "🙂"])
def test_a_text_without_words_has_no_language(identifier: LanguageIdentifier, text: str) -> None:
    assert identifier.identify(text) is None


def test_the_order_of_languages_does_not_matter(identifier: LanguageIdentifier) -> None:
    other = LanguageIdentifier(list(reversed(SENTENCES)))
    mixed = f"{SENTENCES['ru']}\n{SENTENCES['zh']}"
    assert other.identify(mixed) == identifier.identify(mixed)


def test_only_the_languages_asked_for_are_found() -> None:
    assert LanguageIdentifier(["fr"]).identify(SENTENCES["de"]) in {"fr", "en"}
    assert LanguageIdentifier([]).identify("Guten Morgen") == "en"


@pytest.mark.parametrize("code", ["xx", "deu", "", "DE"])
def test_an_unknown_code_is_named(code: str) -> None:
    with pytest.raises(ValueError, match=f"unknown language `{code}`"):
        LanguageIdentifier(["de", code])
