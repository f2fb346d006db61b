"""Drafting by looking up what followed the last time the text went like this: prompt lookup, no model.

As in vLLM's n-gram speculator and `prompt_lookup_num_tokens` of transformers: good where a text repeats itself or its
prompt, free everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.types import TokenIds


class NgramIndex:
    """The n-grams of one text, each with the place after its latest occurrence.

    A token costs `max_ngram` dictionary entries once; a draft costs as many look-ups, however long the text is.

    Example: after ``extend((1, 2, 3, 4, 1, 2))``, ``propose(2)`` is (3, 4): they followed the last (1, 2).

    Args:
        max_ngram: the longest ending of the text that is looked up; the longest one found wins.
        min_ngram: the shortest one.

    Raises ValueError unless 1 <= min_ngram <= max_ngram.
    """

    def __init__(self, tokens: Iterable[int] = (), *, max_ngram: int = 4, min_ngram: int = 2) -> None:
        if not 1 <= min_ngram <= max_ngram:
            raise ValueError(f"min_ngram must be between 1 and max_ngram ({max_ngram}), not {min_ngram}")
        self._tokens: list[int] = []
        self._sizes = range(max_ngram, min_ngram - 1, -1)
        self._following: dict[TokenIds, int] = {}
        self.extend(tokens)

    def __len__(self) -> int:
        """Tokens of the text so far."""
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """The text goes on with `tokens`."""
        for token in tokens:
            # The ending becomes an earlier occurrence only now that something follows it.
            for ending in self._endings():
                self._following[ending] = len(self._tokens)
            self._tokens.append(token)

    def propose(self, count: int) -> TokenIds:
        """The `count` tokens that followed the latest earlier occurrence of the text's ending; () if there is none.

        Where fewer followed it, the occurrence overlaps the ending: the text is in a loop, and the draft goes on with
        its own first tokens, as in LZ77.
        """
        start = next((self._following[e] for e in self._endings() if e in self._following), None)
        if start is None or count < 1:
            return ()
        draft = self._tokens[start : start + count]
        period = len(draft)
        return tuple(draft[i % period] for i in range(count))

    def _endings(self) -> Iterable[TokenIds]:
        """The last n-grams of the text, longest first."""
        tokens = self._tokens
        return [tuple(tokens[-size:]) for size in self._sizes if size <= len(tokens)]
