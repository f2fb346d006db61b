"""Languages that are added while the server runs are told apart from then on, and nobody waits meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from common.languages import LanguageIdentifier
from serve import identification
from serve.identification import Identification

FRENCH = "La petite maison rouge est au bord de la rivière."


async def learned(identification: Identification) -> None:
    assert identification._learning is not None
    await asyncio.wait_for(identification._learning, 30)


async def test_an_added_language_is_told_from_then_on() -> None:
    known = Identification(["de"])
    assert known.identify(FRENCH) != "fr"
    known.learn(["de", "fr", "generic", "no-language"])
    await learned(known)
    assert known.languages == {"de", "fr"}
    assert known.identify(FRENCH) == "fr"
    known.learn(["de"])
    assert known.languages == {"de", "fr"}, "a drafter that is away for a while is no reason to forget"


async def test_texts_are_identified_while_languages_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    made: list[list[str]] = []

    def slow(languages: list[str]) -> LanguageIdentifier:
        made.append(languages)
        assert go_on.wait(5)
        return LanguageIdentifier(languages)

    known = Identification(["de"])
    monkeypatch.setattr(identification, "LanguageIdentifier", slow)
    for _ in range(3):
        known.learn(["fr"])
        await asyncio.sleep(0.01)
    assert known.identify("Das Haus ist klein.") == "de"
    go_on.set()
    await learned(known)
    known.learn(["fr"])
    assert made == [["de", "fr"]]


async def test_who_tells_languages_can_wait_until_they_are_known() -> None:
    """Also while others are being learned."""
    known = Identification([])
    known.learn(["de"])
    await known.know(["fr"])
    assert known.languages == {"de", "fr"}
    assert known.identify(FRENCH) == "fr"
    await known.know(["de"])
    assert known.languages == {"de", "fr"}
