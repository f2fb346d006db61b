"""N-gram lookup against a search through the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.ngram import NgramLookup

texts = st.lists(st.integers(0, 2), max_size=40)


def search(tokens: list[int], count: int, max_ngram: int, min_ngram: int) -> tuple[int, ...]:
    """Longest ending first, then the latest earlier place; token by token, drafted ones included."""
    for size in range(min(max_ngram, len(tokens)), min_ngram - 1, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                text = list(tokens)
                for i in range(count):
                    text.append(text[end + i])
                return tuple(text[len(tokens) :])
    return ()


@settings(deadline=None)
@given(tokens=texts, count=st.integers(0, 8), sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_a_draft_is_what_a_search_through_the_text_finds(tokens: list[int], count: int, sizes: tuple[int, int]) -> None:
    min_ngram, max_ngram = sorted(sizes)
    lookup = NgramLookup(tokens, max_ngram=max_ngram, min_ngram=min_ngram)
    assert lookup.propose(count) == search(tokens, count, max_ngram, min_ngram)


@settings(deadline=None)
@given(pieces=st.lists(texts, max_size=5))
def test_it_does_not_matter_in_which_pieces_a_text_comes(pieces: list[list[int]]) -> None:
    lookup, whole = NgramLookup(), [token for piece in pieces for token in piece]
    for piece in pieces:
        lookup.propose(3)
        lookup.extend(piece)
    assert len(lookup) == len(whole)
    assert lookup.propose(5) == NgramLookup(whole).propose(5)


@pytest.mark.parametrize(
    ("tokens", "draft"),
    [
        ((1, 2, 3, 4, 1, 2), (3, 4)),
        ((1, 2, 3, 1, 2, 4, 1, 2), (4, 1)),
        ((7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2), (3, 8)),
        ((5, 5, 5), (5, 5)),
        ((1, 2, 3, 4), ()),
        ((), ()),
    ],
    ids=["example", "the latest wins", "the longest wins", "a loop is drafted in full", "nothing repeats", "empty"],
)
def test_drafts_by_hand(tokens: tuple[int, ...], draft: tuple[int, ...]) -> None:
    assert NgramLookup(tokens).propose(2) == draft


@pytest.mark.parametrize(("min_ngram", "max_ngram"), [(0, 4), (5, 4)])
def test_sizes_out_of_range_are_refused(min_ngram: int, max_ngram: int) -> None:
    with pytest.raises(ValueError, match="min_ngram"):
        NgramLookup(min_ngram=min_ngram, max_ngram=max_ngram)
