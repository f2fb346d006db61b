from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.cleaning import Cleaner, CleaningReport, CleaningSettings
from train.decontamination import HeldOut
from train.hashing import SeenHashes, distinct
from train.pair import Pair
from train.splitting import Splitter, lowest

texts = st.text(alphabet="abcéß ", max_size=6)
pair_lists = st.lists(st.builds(Pair, source=texts, english=texts), max_size=30)


def clean(pairs: Iterable[Pair], **settings: object) -> tuple[list[Pair], CleaningReport]:
    cleaner = Cleaner(CleaningSettings(**settings), "de")
    return list(cleaner.clean(pairs)), cleaner.report


def test_cleaning_counts_what_it_drops() -> None:
    raw = [
        Pair(" Cafe\u0301 ", "coffee"),
        Pair("Café", "coffee"),
        Pair("Tee", " "),
        Pair("OK", "OK"),
        Pair("lang" * 10, "long"),
        Pair("O", "Oh"),
        Pair("Nein", "Certainly not!!!!"),
    ]
    kept, report = clean(raw, min_characters=2, max_characters=20, max_length_ratio=4)
    assert kept == [Pair("Café", "coffee")]
    assert report == CleaningReport(
        read=7, kept=1, empty=1, identical=1, over_long=1, duplicate=1, too_short=1, unequal=1
    )


def test_lengths_are_compared_in_bytes() -> None:
    pair = Pair("上周临时停播", "The show was halted last week.")
    assert clean([pair], max_length_ratio=2)[0] == [pair]
    assert clean([pair], max_length_ratio=1.5)[0] == []


def test_a_source_in_another_language_is_dropped_where_languages_are_identified() -> None:
    german, english, french, none = (
        Pair("Das Haus ist klein, aber schön.", "a"),
        Pair("This sentence was never translated.", "b"),
        Pair("Cette phrase est écrite en français.", "c"),
        Pair("1984", "d"),
    )
    pairs = [german, english, french, none]
    assert clean(pairs)[0] == pairs
    kept, report = clean(pairs, languages=["fr"])
    assert kept == [german, none] and report.other_language == 2


@pytest.mark.parametrize(
    "settings", [{"min_characters": 0}, {"min_characters": 9, "max_characters": 8}, {"max_length_ratio": 0.5}]
)
def test_limits_that_nothing_can_meet_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        CleaningSettings(**settings)


@given(pair_lists)
def test_cleaning_twice_changes_nothing_more(pairs: list[Pair]) -> None:
    once, first = clean(pairs, max_characters=5)
    twice, second = clean(once, max_characters=5)
    assert twice == once
    assert first.read == len(pairs) and second.kept == second.read == len(once)
    counts = [getattr(first, name) for name in CleaningReport.__struct_fields__ if name != "read"]
    assert sum(counts) == first.read


@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=12))
def test_hashes_are_new_once(batches: list[list[int]]) -> None:
    seen, known = SeenHashes(), set[int]()
    for batch in batches:
        for value, new in zip(batch, seen.add(batch).tolist(), strict=True):
            assert new == (value not in known)
            known.add(value)


def test_distinct_texts_keep_their_order() -> None:
    assert list(distinct(["b", "a", "b", "c", "a"])) == ["b", "a", "c"]


def split(pairs: Iterable[Pair], *, valid: float, test: float, seed: int) -> dict[str, list[Pair]]:
    splitter = Splitter(valid=valid, test=test, seed=seed)
    parts: dict[str, list[Pair]] = {"train": [], "valid": [], "test": []}
    for pair in pairs:
        parts[splitter.part(pair)].append(pair)
    return parts


@given(pair_lists, st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 3))
def test_a_split_goes_by_the_english_side(pairs: list[Pair], valid: float, test: float, seed: int) -> None:
    parts = split(pairs, valid=valid, test=test, seed=seed)
    train, held, tested = ({pair.english for pair in part} for part in parts.values())
    assert not train & held and not train & tested and not held & tested


@given(st.lists(st.tuples(texts, st.sampled_from(["one", "two", "three", "four"]))), st.integers(0, 3))
def test_a_document_is_in_one_part(sentences: list[tuple[str, str]], seed: int) -> None:
    parts = split((Pair("a", english, name) for english, name in sentences), valid=0.3, test=0.3, seed=seed)
    train, held, tested = ({pair.document for pair in part} for part in parts.values())
    assert not train & held and not train & tested and not held & tested


def test_the_split_of_a_sentence_is_the_same_in_every_language_and_run() -> None:
    english = [f"Sentence number {number}." for number in range(2000)]
    german = split([Pair(f"de {text}", text) for text in english], valid=0.1, test=0.1, seed=1)
    french = split([Pair(f"fr {text}", text) for text in reversed(english)], valid=0.1, test=0.1, seed=1)
    assert {pair.english for pair in german["test"]} == {pair.english for pair in french["test"]}
    assert 150 < len(german["valid"]) < 250 and 150 < len(german["test"]) < 250
    assert german["test"][0].english == "Sentence number 28."  # does not depend on Python's hash seed


def test_shares_that_are_more_than_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"valid \(0\.6\) and test \(0\.6\)"):
        Splitter(valid=0.6, test=0.6, seed=0)


@given(pair_lists, pair_lists)
def test_no_held_out_text_is_left_after_decontamination(train: list[Pair], held_out: list[Pair]) -> None:
    known = {text for pair in held_out for text in (pair.source, pair.english)}
    sets = HeldOut()
    sets.add("set", known)
    kept = list(sets.unseen(train))
    assert not any(pair.source in known or pair.english in known for pair in kept)
    assert sets.found == {"set": len(train) - len(kept)}
    assert list(HeldOut().unseen(train)) == train


def test_case_and_spacing_do_not_hide_a_held_out_sentence() -> None:
    sets = HeldOut()
    sets.add("set", ["good day."])
    assert list(sets.unseen([Pair("a", "Good  DAY."), Pair("b", "bye")])) == [Pair("b", "bye")]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3])), st.integers(0, 40))
def test_the_lowest_are_taken_and_of_equals_the_first(ranks: list[float], count: int) -> None:
    expected = sorted(sorted(range(len(ranks)), key=ranks.__getitem__)[:count])
    assert np.flatnonzero(lowest(np.array(ranks), count)).tolist() == expected
