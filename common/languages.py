"""Languages: ISO 639-1 codes, English names, and which language a text is in (by the lingua library)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lingua import IsoCode639_1, Language, LanguageDetectorBuilder

NAMES: dict[str, str] = {
    language.iso_code_639_1.name.lower(): language.name.title()
    for language in sorted(Language.all(), key=lambda language: language.iso_code_639_1.name)
}
"""English name by ISO 639-1 code, for every language that can be identified."""

GENERALIST = "generalist"
"""Stands where a language would, for the drafter trained on all of them; a language without a drafter gets it."""

FRAME = "en"
"""People give instructions in it around text in other languages."""

MIN_SHARE = 0.05
"""A text is in the language that English frames if that makes up at least this part of its bytes: an English text
with a foreign name or two stays English."""

MAX_CHARACTERS = 8_192
"""Only the beginning of a longer text is looked at, which bounds the time of one call to some tens of ms."""

_LATIN = "A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ"
_BREAK = re.compile('[:：\n"“”„«»「」『』]')
_ONE_SCRIPT = re.compile(rf"(?:[{_LATIN}]|[\W\d_])+|[^{_LATIN}]+")


def language_name(code: str) -> str:
    """English name of the language, such as ``German`` for ``de``. Raises ValueError for an unknown code."""
    if code not in NAMES:
        raise ValueError(f"unknown language `{code}`: expected an ISO 639-1 code such as `de` or `zh`")
    return NAMES[code]


class LanguageIdentifier:
    """Tells which of `languages` (ISO 639-1 codes; English is always one of them) a text is in.

    Identification is deterministic. Making one reads the models of the languages in Latin script (about 1 s and
    120 MB for German, French and English); other scripts that only one of the languages uses need no model.
    Raises ValueError for an unknown code.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        for code in languages:
            language_name(code)
        codes = [getattr(IsoCode639_1, code.upper()) for code in sorted({*languages, FRAME})]
        # lingua refuses to choose among fewer than two languages.
        self._detector = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build() if len(codes) > 1 else None
        # lingua reads its models when it first needs them: not while a request waits.
        self.identify("Which language is this?")

    def identify(self, text: str) -> str | None:
        """Code of the language that `text` is in, None if it holds no words.

        English around a text in another language is taken for an instruction: ``Translate German to English:Nein!``
        is German. So the text is cut where a frame can end (at colons, quotation marks and line ends, and where
        the script changes), each piece is identified, and English counts only if nothing else has MIN_SHARE.
        """
        text = text[:MAX_CHARACTERS]
        if self._detector is None:
            return FRAME if any(character.isalpha() for character in text) else None
        sizes: dict[str, int] = {}
        for piece in _pieces(text):
            found = self._detector.detect_language_of(piece)
            if found is not None:
                code = found.iso_code_639_1.name.lower()
                sizes[code] = sizes.get(code, 0) + len(piece.encode())
        framed = {code: size for code, size in sizes.items() if code != FRAME}
        largest = max(sorted(framed), key=lambda code: framed[code], default=None)
        if largest is not None and framed[largest] >= MIN_SHARE * sum(sizes.values()):
            return largest
        return FRAME if sizes else None


def _pieces(text: str) -> list[str]:
    """Parts of `text` that are each in one script and hold a letter."""
    pieces = (piece for part in _BREAK.split(text) for piece in _ONE_SCRIPT.findall(part))
    return [piece for piece in pieces if any(character.isalpha() for character in piece)]
