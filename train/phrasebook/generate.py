"""Which sentences the phrasebook holds, and in which order they are drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from train.phrasebook import acts, phrases, talk
from train.phrasebook.chinese import realise as chinese
from train.phrasebook.english import realise as english
from train.phrasebook.french import realise as french
from train.phrasebook.german import realise as german
from train.phrasebook.japanese import realise as japanese
from train.phrasebook.meaning import Meaning
from train.phrasebook.russian import realise as russian

REALISERS: dict[str, Callable[[Meaning], str]] = {
    "de": german,
    "fr": french,
    "ja": japanese,
    "ru": russian,
    "zh": chinese,
}
LANGUAGES: tuple[str, ...] = tuple(REALISERS)

Frames = tuple[tuple[int, Callable[[], Iterable[Meaning]]], ...]
FRAMES: Frames = (
    (11, acts.meals),
    (14, acts.purchases),
    (5, acts.pastimes),
    (4, acts.belongings),
    (6, acts.meetings),
    (8, acts.trips),
    (9, acts.wishes),
    (4, acts.questions),
    (4, phrases.orders),
    (2, phrases.requests),
    (2, phrases.ways),
    (3, phrases.locations),
    (2, phrases.directions),
    (3, phrases.prices),
    (2, phrases.qualities),
    (3, phrases.comparisons),
    (1, phrases.contents),
    (1, phrases.reservations),
    (3, phrases.stays),
    (2, phrases.openings),
    (1, phrases.departures),
    (2, phrases.weather),
    (5, talk.possessions),
    (4, talk.likings),
    (5, talk.needs),
    (1, talk.speech),
    (1, talk.states),
    (1, talk.professions),
    (1, talk.ages),
    (5, talk.gifts),
    (4, talk.reasons),
    (3, talk.plans),
    (4, talk.obstacles),
    (3, talk.preferences),
    (4, talk.pairs_of_acts),
)
"""Every kind of sentence with its share among the sentences drawn first."""
TRAVEL: Frames = tuple(frame for frame in FRAMES if frame[1].__module__ == phrases.__name__)
"""What travellers say."""
EVERYDAY: Frames = tuple(frame for frame in FRAMES if frame not in TRAVEL)
"""All else."""


def pairs(language: str, count: int, seed: int = 0, frames: Frames = FRAMES) -> list[tuple[str, str]]:
    """Draw `count` (source, English) sentences with distinct sources; the same seed draws the same ones.

    The kinds of sentences keep their shares until one of them has no more. Raises ValueError for a language
    the phrasebook does not have, and for more sentences than it holds in that language.
    """
    if language not in REALISERS:
        raise ValueError(f"language {language!r} is not in the phrasebook, which has {', '.join(LANGUAGES)}")
    realise = REALISERS[language]
    drawn: dict[str, str] = {}
    for meaning in _shuffled(seed, frames):
        if len(drawn) >= count:
            break
        source = realise(meaning)
        if source not in drawn:
            drawn[source] = english(meaning)
    if len(drawn) < count:
        raise ValueError(f"language {language!r}: {count} sentences wanted, the phrasebook holds {len(drawn)}")
    return list(drawn.items())


def _shuffled(seed: int, frames: Frames) -> Iterator[Meaning]:
    """All meanings of `frames`, those of each frame in random order, the frames interleaved by their shares.

    Only ``random()`` is drawn from: Python promises its sequence for a seed, over versions, for no other method.
    """
    rng = random.Random(seed)
    ranked: list[tuple[float, int, int]] = []
    meanings: list[list[Meaning]] = []
    for frame, (share, enumerate_meanings) in enumerate(frames):
        meanings.append(list(enumerate_meanings()))
        order = sorted((rng.random(), index) for index in range(len(meanings[frame])))
        ranked += [((rank + rng.random()) / share, frame, index) for rank, (_, index) in enumerate(order)]
    for _, frame, index in sorted(ranked):
        yield meanings[frame][index]
