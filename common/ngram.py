"""Drafting by looking up what followed the last time the text went like this: prompt lookup, no model.

As in vLLM's n-gram speculator and `prompt_lookup_num_tokens` of transformers: good where a text repeats itself or its
prompt, free everywhere else.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from common.types import TokenIds


class NgramLookup:
    """One text, and where its ending has occurred before.

    Nothing is indexed: a draft is found by a scan through the text, 5 µs for a thousand tokens and 60 µs for 32,000. An
    index of that many would first cost some 40 ms and 8 MB or more, for every choice of a request anew.

    Example: after ``extend((1, 2, 3, 4, 1, 2))``, ``propose(2)`` is (3, 4): they followed the last (1, 2).

    Args:
        max_ngram: the longest ending of the text that is looked up; the longest one found wins.
        min_ngram: the shortest one.

    Raises ValueError unless 1 <= min_ngram <= max_ngram.
    """

    def __init__(self, tokens: Iterable[int] = (), *, max_ngram: int = 4, min_ngram: int = 2) -> None:
        if not 1 <= min_ngram <= max_ngram:
            raise ValueError(f"min_ngram must be between 1 and max_ngram ({max_ngram}), not {min_ngram}")
        self._tokens = array("q", tokens)
        self._max_ngram, self._min_ngram = max_ngram, min_ngram

    def __len__(self) -> int:
        """Tokens of the text so far."""
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """The text goes on with `tokens`."""
        self._tokens.extend(tokens)

    def propose(self, count: int) -> TokenIds:
        """The `count` tokens that followed the latest earlier occurrence of the text's ending; () if there is none.

        Where fewer followed it, the occurrence overlaps the ending: the text is in a loop, and the draft goes on with
        its own first tokens, as in LZ77.
        """
        start = self._following() if count > 0 else None
        if start is None:
            return ()
        draft = self._tokens[start : start + count]
        period = len(draft)
        return tuple(draft[i % period] for i in range(count))

    def _following(self) -> int | None:
        """The place after the latest earlier occurrence of the longest ending that has one."""
        tokens = np.frombuffer(self._tokens, dtype=np.int64)
        found, ends_here = None, np.ones(len(tokens), dtype=bool)
        for size in range(1, min(self._max_ngram, len(tokens) - 1) + 1):
            # For each place from `size` on: whether the n-gram before it is the text's ending.
            ends_here = ends_here[1:] & (tokens[: len(tokens) - size] == tokens[-size])
            latest = len(ends_here) - 1 - int(ends_here[::-1].argmax())
            if not ends_here[latest]:
                break
            found = latest + size if size >= self._min_ngram else None
        return found
