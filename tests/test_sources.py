import gzip
import json
import lzma
import re
from pathlib import Path

import datasets
import pytest

from train.pair import CorpusError, Pair
from train.sources import read_pairs

PAIRS = [Pair("Guten Tag.", "Good day."), Pair("Ja.", "Yes.")]
TSV = "".join(f"{pair.source}\t{pair.english}\n" for pair in PAIRS)
ROWS = [{"translation": {"de": pair.source, "en": pair.english}} for pair in PAIRS]


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
    assert list(read_pairs(write(tmp_path / name, content))) == PAIRS


def test_pairs_are_read_from_parquet(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    assert list(read_pairs(str(tmp_path / "a.parquet"))) == PAIRS


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "ein\u2028Satz\tone\x85sentence\n")
    assert list(read_pairs(path)) == [Pair("ein\u2028Satz", "one\x85sentence")]


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
        ("a.jsonl", '{"source": "a", "english": "\\ud800"}', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", '{"source": "a", "english": "b", "document": 3}', r"a\.jsonl:1: expected the document's name"),
        ("a.parquet", "no parquet", r"a\.parquet: cannot be read"),
        ("a.csv", TSV, r"a\.csv: expected a \.tsv, \.jsonl or \.parquet file, found \.csv"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_the_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        list(read_pairs(write(tmp_path / name, content)))


@pytest.mark.parametrize("name", ["missing.tsv", "missing.tsv.xz", "missing.jsonl", "missing.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=rf"{re.escape(name)}: no such file"):
        list(read_pairs(str(tmp_path / name)))


def test_reading_holds_no_more_than_it_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", TSV + "broken\n")
    pairs = read_pairs(path)
    assert [next(pairs), next(pairs)] == PAIRS
    with pytest.raises(CorpusError, match=r"a\.tsv:3"):
        next(pairs)


@pytest.mark.parametrize("row", [{"translation": {"de": "a", "en": "b"}}, {"source": "a", "english": "b"}])
def test_a_pair_may_name_its_document(tmp_path: Path, row: dict[str, object]) -> None:
    rows = [row | {"document": "news"}, row]
    expected = [Pair("a", "b", "news"), Pair("a", "b")]
    assert list(read_pairs(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))) == expected
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert list(read_pairs(str(tmp_path / "a.parquet"))) == expected
