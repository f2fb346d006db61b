import gzip
import json
import lzma
import re
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.cleaning import choose, clean, decontaminate, split
from train.corpus import CorpusError, CorpusSettings, HubSource, Pair, load_corpus, read_pairs

PAIRS = [Pair("Guten Tag.", "Good day."), Pair("Ja.", "Yes.")]
TSV = "".join(f"{pair.source}\t{pair.english}\n" for pair in PAIRS)
ROWS = [{"translation": {"de": pair.source, "en": pair.english}} for pair in PAIRS]

texts = st.text(alphabet="abcéß ", max_size=6)
pair_lists = st.lists(st.builds(Pair, source=texts, english=texts), max_size=30)


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", TSV.encode()),
        ("a.tsv.xz", lzma.compress(TSV.encode())),
        ("a.tsv.gz", gzip.compress(TSV.encode())),
        ("a.tsv", b"\xef\xbb\xbf" + TSV.replace("\n", "\r\n\r\n").encode()),
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
        ("a.jsonl", "".join(json.dumps({"source": p.source, "english": p.english}) + "\n" for p in PAIRS).encode()),
    ],
)
def test_the_same_pairs_are_read_from_every_format(tmp_path: Path, name: str, content: bytes) -> None:
    assert read_pairs(write(tmp_path / name, content)) == PAIRS


def test_pairs_are_read_from_parquet(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    assert read_pairs(str(tmp_path / "a.parquet")) == PAIRS


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "ein\u2028Satz\tone\x85sentence\n")
    assert read_pairs(path) == [Pair("ein\u2028Satz", "one\x85sentence")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", TSV + "no tab here\n", r"a\.tsv:3: expected source<TAB>english, found 1 field\(s\): 'no tab here'"),
        ("a.tsv", TSV + "a\tb\tc\n", r"a\.tsv:3: expected source<TAB>english, found 3 field\(s\)"),
        ("a.tsv", b"a\tb\n\xff\tb\n", r"a\.tsv:2: not UTF-8"),
        ("a.tsv", " \n\n", r"a\.tsv: empty corpus"),
        ("a.tsv.xz", b"not xz", r"a\.tsv\.xz: cannot be read"),
        ("a.tsv.xz", lzma.compress(TSV.encode())[:-20], r"a\.tsv\.xz: cannot be read"),
        ("a.jsonl", '{"source": "a", "english": "b"}\n{', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"translation": {"de": "a"}}', r"a\.jsonl:1: expected .*found \{'translation'"),
        ("a.jsonl", "3", r"a\.jsonl:1: expected .*found 3"),
        ("a.jsonl", '{"source": "a", "english": 3}', r"a\.jsonl:1: expected two texts, found str and int"),
        ("a.parquet", "no parquet", r"a\.parquet: cannot be read"),
        ("a.csv", TSV, r"a\.csv: expected a \.tsv, \.jsonl or \.parquet file, found \.csv"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_the_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        read_pairs(write(tmp_path / name, content))


@pytest.mark.parametrize("name", ["missing.tsv", "missing.tsv.xz", "missing.jsonl", "missing.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=rf"{re.escape(name)}: no such file"):
        read_pairs(str(tmp_path / name))


def test_a_dataset_in_the_schema_of_wmt_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "wmt"
    folder.mkdir()
    write(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    source = HubSource(id="{data}/wmt", config=None, split="train[:1]")
    corpus = load_corpus(CorpusSettings(train=(source,), valid_share=0, test_share=0), "de", str(tmp_path))
    assert corpus.train == PAIRS[:1]


def test_sources_are_found_per_language_and_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    for name, line in [("one.tsv", "eins\tone\n"), ("two.tsv", "zwei\ttwo\n"), ("held.tsv", "drei\tthree\n")]:
        write(tmp_path / "de" / name, line)
    settings = CorpusSettings(
        train=("{data}/{language}/o*.tsv", "{data}/{language}/two.tsv"), valid=("{data}/de/held.tsv",), test_share=0
    )
    corpus = load_corpus(settings, "de", str(tmp_path))
    assert (corpus.train, corpus.valid) == ([Pair("eins", "one"), Pair("zwei", "two")], [Pair("drei", "three")])


@pytest.mark.parametrize(
    ("source", "message"),
    [("{data}/{lang}.tsv", "only {language} and {data}"), ("{data}/x*.tsv", "no file matches")],
)
def test_a_source_that_names_nothing_is_an_error(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        load_corpus(CorpusSettings(train=(source,)), "de", str(tmp_path))


def test_too_few_pairs_are_an_error_that_names_the_language(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", TSV)
    with pytest.raises(CorpusError, match="de: 2 training pairs are left, min_pairs is 3"):
        load_corpus(CorpusSettings(train=(path,), valid_share=0, test_share=0, min_pairs=3), "de")


def test_cleaning_counts_what_it_drops() -> None:
    raw = [
        Pair(" Cafe\u0301 ", "coffee"),
        Pair("Café", "coffee"),
        Pair("Tee", " "),
        Pair("OK", "OK"),
        Pair("lang" * 10, "long"),
    ]
    kept, report = clean(raw, max_characters=20)
    assert kept == [Pair("Café", "coffee")]
    assert (report.read, report.kept) == (5, 1)
    assert (report.empty, report.identical, report.over_long, report.duplicate) == (1, 1, 1, 1)


@given(pair_lists)
def test_cleaning_twice_changes_nothing_more(pairs: list[Pair]) -> None:
    once, first = clean(pairs, 5)
    twice, second = clean(once, 5)
    assert twice == once
    assert first.read == len(pairs) and second.kept == second.read == len(once)


@given(pair_lists, st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 3))
def test_a_split_keeps_every_pair_once_and_goes_by_the_english_side(
    pairs: list[Pair], valid: float, test: float, seed: int
) -> None:
    parts = split(pairs, valid=valid, test=test, seed=seed)
    groups = [parts.train, parts.valid, parts.test]
    assert sorted(p for group in groups for p in map(tuple_of, group)) == sorted(map(tuple_of, pairs))
    english = [{pair.english for pair in group} for group in groups]
    assert not english[0] & english[1] and not english[0] & english[2] and not english[1] & english[2]


def test_the_split_of_a_sentence_is_the_same_in_every_language_and_run() -> None:
    english = [f"Sentence number {number}." for number in range(2000)]
    german = split([Pair(f"de {text}", text) for text in english], valid=0.1, test=0.1, seed=1)
    french = split([Pair(f"fr {text}", text) for text in reversed(english)], valid=0.1, test=0.1, seed=1)
    assert {pair.english for pair in german.test} == {pair.english for pair in french.test}
    assert 150 < len(german.valid) < 250 and 150 < len(german.test) < 250
    assert german.test[0].english == "Sentence number 28."  # does not depend on Python's hash seed


def test_shares_that_are_more_than_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"valid \(0\.6\) and test \(0\.6\)"):
        split([], valid=0.6, test=0.6, seed=0)


@given(pair_lists, pair_lists)
def test_no_held_out_text_is_left_after_decontamination(train: list[Pair], held_out: list[Pair]) -> None:
    kept = decontaminate(train, held_out)
    known = {text for pair in held_out for text in (pair.source, pair.english)}
    assert not any(pair.source in known or pair.english in known for pair in kept)
    assert decontaminate(train, []) == train


def test_case_and_spacing_do_not_hide_a_held_out_sentence() -> None:
    assert decontaminate([Pair("a", "Good  DAY."), Pair("b", "bye")], [Pair("x", "good day.")]) == [Pair("b", "bye")]


@given(pair_lists, st.integers(0, 40))
def test_choosing_keeps_the_order_and_grows_with_the_count(pairs: list[Pair], count: int) -> None:
    chosen = choose(pairs, count, seed=0)
    assert len(chosen) == min(count, len(pairs))
    rest = iter(pairs)
    assert all(pair in rest for pair in chosen)


def tuple_of(pair: Pair) -> tuple[str, str]:
    return pair.source, pair.english
