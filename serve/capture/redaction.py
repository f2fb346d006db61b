"""Taking out of a text what patterns can find of persons and secrets. Names and addresses no pattern finds."""

from __future__ import annotations

import re
from collections.abc import Sequence

MARK = "[redacted]"
SEPARATORS = r" \u00a0\u3000()\uff08\uff09./+\uff0b\u2010-\u2015\u2212\uff0d\u30fc-"
"""Of the digits of a number, as written in the West and in East Asia."""
_GROUPS = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}"
PATTERNS = {
    "URL": r"(?i:(?:https?|ftp)://|www\.)\S+",
    "e-mail address": r"\S{0,64}@\S+",
    "IBAN": r"[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,}",
    "key or hash": r"(?=[A-Za-z_-]{0,64}\d)[A-Za-z0-9](?:[_-]?[A-Za-z0-9]){31,}",
    "IPv4 address": r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)",
    "IPv6 address": r"(?:[0-9A-Fa-f]{1,4}:{1,2}){3,}[0-9A-Fa-f]{1,4}",
    "IPv6 address, shortened": rf"(?<![\w:])(?:{_GROUPS}::(?:{_GROUPS})?|::{_GROUPS})(?![\w:])",
    "number of a phone, card or account": rf"\+?\d(?:[{SEPARATORS}]{{0,3}}\d){{6,}}",
}
"""Seven digits are a phone number's fewest. None of these takes more than linear time: a text is a stranger's."""
PASSES = 4
"""What is taken out may bring together what then matches, too."""


class Redactor:
    """Takes out what PATTERNS find, and patterns of one's own.

    Raises ValueError, naming its place, for one that is no regular expression, or that finds what is not there.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        self._patterns = [re.compile(pattern) for pattern in PATTERNS.values()]
        self._patterns += [_compiled(number, pattern) for number, pattern in enumerate(own)]

    def redact(self, text: str) -> str:
        """The text in which no pattern finds anything.

        Raises ValueError if that cannot be had, as with a pattern that finds MARK.
        """
        for _ in range(PASSES):
            before = text
            for pattern in self._patterns:
                text = pattern.sub(MARK, text)
            if text == before:
                return text
        raise ValueError("redaction comes to no end")


def _compiled(number: int, pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"redact[{number}] is not a regular expression: {error}: {pattern!r}") from None
    if compiled.search(""):
        raise ValueError(f"redact[{number}] matches the empty text: {pattern!r}")
    return compiled
