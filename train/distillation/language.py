"""Answers in the wrong language, which a drafter must not learn from."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from common.languages import LanguageIdentifier
from common.types import TokenIds

MIN_BYTES = 20
"""Shorter texts can be taken for another language by accident, and are kept. In UTF-8 bytes, since a character says
more of its language where it takes more of them."""


class LanguageFilter:
    """Args:
    wanted: ISO 639-1 code of the language that answers must be in.
    prompted: the language of the prompts, which answers may be in by mistake.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, wanted: str, prompted: str) -> None:
        self._tokenizer = tokenizer
        self._wanted = wanted
        self._identifier = LanguageIdentifier([wanted, prompted])

    def objection(self, output: TokenIds) -> str | None:
        """Why the answer must go; None if it may stay."""
        text = self._tokenizer.decode(output, skip_special_tokens=True).strip()
        if len(text.encode()) < MIN_BYTES:
            return None
        found = self._identifier.identify(text)
        return None if found in (None, self._wanted) else f"in `{found}`, not `{self._wanted}`: {text}"
