import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from train.corpus import CorpusReport, CorpusSettings, read_part, read_test, read_training, sample_part, write_corpus
from train.pair import CorpusError, Pair
from train.sources import HubSource

PAIRS = [Pair("Guten Tag.", "Good day."), Pair("Ja.", "Yes.")]
TSV = "".join(f"{pair.source}\t{pair.english}\n" for pair in PAIRS)
ROWS = [{"translation": {"de": pair.source, "en": pair.english}} for pair in PAIRS]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def make(folder: Path, settings: CorpusSettings, language: str = "de", data: str = "") -> CorpusReport:
    folder.mkdir(exist_ok=True)
    return write_corpus(settings, language, data, folder)


def test_a_dataset_in_the_schema_of_wmt_is_streamed(tmp_path: Path) -> None:
    folder = tmp_path / "wmt"
    folder.mkdir()
    write(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    source = HubSource(id="{data}/wmt", config=None, max_rows=1)
    make(tmp_path / "out", CorpusSettings(train=(source,), valid_share=0, test_share=0), data=str(tmp_path))
    assert list(read_part(tmp_path / "out", "train")) == PAIRS[:1]


def test_a_split_that_a_dataset_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", json.dumps(ROWS[0]))
    source = HubSource(id=str(tmp_path), config=None, split="dev")
    with pytest.raises(CorpusError, match="cannot be loaded: Bad split: dev"):
        make(tmp_path / "out", CorpusSettings(train=(source,)))


def test_sources_are_found_per_language_and_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    for name, line in [("one.tsv", "eins\tone\n"), ("two.tsv", "zwei\ttwo\n"), ("held.tsv", "drei\tthree\n")]:
        write(tmp_path / "de" / name, line)
    settings = CorpusSettings(
        train=("{data}/{language}/o*.tsv", "{data}/{language}/two.tsv"), valid=("{data}/de/held.tsv",), test_share=0
    )
    report = make(tmp_path / "out", settings, data=str(tmp_path))
    assert list(read_part(tmp_path / "out", "train")) == [Pair("eins", "one"), Pair("zwei", "two")]
    assert list(read_part(tmp_path / "out", "valid")) == [Pair("drei", "three")]
    assert report.pairs == {"train": 2, "valid": 1, "test": 0}


@pytest.mark.parametrize(
    ("source", "message"),
    [("{data}/{lang}.tsv", "only {language} and {data}"), ("{data}/x*.tsv", "no file matches")],
)
def test_a_source_that_names_nothing_is_an_error(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        make(tmp_path / "out", CorpusSettings(train=(source,)), data=str(tmp_path))


def test_too_few_pairs_are_an_error_that_names_the_language(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", TSV)
    with pytest.raises(CorpusError, match="de: 2 training pairs are left, min_pairs is 3"):
        make(tmp_path / "out", CorpusSettings(train=(path,), valid_share=0, test_share=0, min_pairs=3))
    assert not list((tmp_path / "out").iterdir())


def test_training_text_is_decontaminated_against_every_evaluation_set(tmp_path: Path) -> None:
    lines = [("eins", "one"), ("zwei", "two"), ("drei", "three"), ("vier", "four"), ("fünf", "five"), ("sechs", "six")]
    train = write(tmp_path / "train.tsv", "".join(f"{a}\t{b}\n" for a, b in lines))
    test = write(tmp_path / "test.tsv", "Eins\tuno\n")
    parallel = write(tmp_path / "parallel.tsv", "deux\ttwo\neins\tone\n")
    questions = [
        {"question_id": 1, "turns": ["Translate German to English:Drei"]},
        {"question_id": 2, "turns": ["Text: x\nVier\n"], "reference": ["Five", ["SIX"]]},
    ]
    asked = write(tmp_path / "questions.jsonl", "\n".join(map(json.dumps, questions)))
    settings = CorpusSettings(train=(train,), test=(test,), valid_share=0, decontaminate=(parallel, asked), min_pairs=0)
    report = make(tmp_path / "out", settings)
    assert list(read_part(tmp_path / "out", "train")) == []
    assert report.contaminated == {"valid": 0, "test": 1, parallel: 1, asked: 4}


def test_a_question_that_is_none_is_named(tmp_path: Path) -> None:
    asked = write(tmp_path / "questions.jsonl", '{"turns": ["a"]}\n{"turns": "b"}')
    settings = CorpusSettings(train=(write(tmp_path / "train.tsv", TSV),), decontaminate=(asked,))
    with pytest.raises(CorpusError, match=r"questions\.jsonl:2: not a question: Expected `array`"):
        make(tmp_path / "out", settings)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CorpusSettings, Path, CorpusReport]]:
    """A corpus with documents, duplicates and sentences that occur in several of them."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [
        {"source": f"Satz {n % 700}", "english": f"Sentence {n % 600}", **({"document": f"d{n % 90}"} if n % 3 else {})}
        for n in range(3000)
    ]
    path = write(folder / "all.jsonl", "\n".join(map(json.dumps, rows)))
    settings = CorpusSettings(train=(path,), valid_share=0.05, test_share=0.05, max_pairs=400)
    yield settings, folder, write_corpus(settings, "de", "", folder)


def test_every_pair_that_was_read_is_accounted_for(corpus: tuple[CorpusSettings, Path, CorpusReport]) -> None:
    settings, folder, report = corpus
    assert report.pairs == {part: len(list(read_part(folder, part))) for part in report.pairs}
    contaminated = sum(report.contaminated.values())
    assert report.pairs["train"] == settings.max_pairs and report.left_out > 0 and contaminated > 0
    assert report.cleaning["train"].read == 3000
    dropped = contaminated + report.tested + report.left_out
    assert report.cleaning["train"].kept == sum(report.pairs.values()) + dropped


def test_no_held_out_sentence_is_in_the_training_part(corpus: tuple[CorpusSettings, Path, CorpusReport]) -> None:
    _, folder, _ = corpus
    train, *held_out = (
        {side for pair in read_part(folder, part) for side in (pair.source, pair.english)}
        for part in ("train", "valid", "test")
    )
    assert all(held_out) and not any(train & part for part in held_out)


def test_the_test_part_alone_is_that_of_the_whole_corpus(corpus: tuple[CorpusSettings, Path, CorpusReport]) -> None:
    settings, folder, _ = corpus
    assert read_test(settings, "de", "") == list(read_part(folder, "test"))


def test_the_pairs_chosen_keep_their_order_and_grow_with_their_number(
    tmp_path: Path, corpus: tuple[CorpusSettings, Path, CorpusReport]
) -> None:
    settings, folder, _ = corpus
    make(tmp_path, msgspec.structs.replace(settings, max_pairs=500))
    more = iter(read_part(tmp_path, "train"))
    assert all(pair in more for pair in read_part(folder, "train"))
    assert list(sample_part(tmp_path, "train", 400, settings.seed)) == list(read_part(folder, "train"))
    assert list(sample_part(tmp_path, "train", 600, seed=1)) == list(read_part(tmp_path, "train"))


def test_what_one_language_holds_out_is_not_trained_on_in_another(tmp_path: Path) -> None:
    """Where a model is trained on both; the drafters of each have text of their own."""
    shared = Pair("Wo ist es?", "Where is it?")
    german = [Pair(f"Satz {n}", f"Sentence {n}") for n in range(4)]
    french = [Pair("Où est-ce ?", "Where  is it?"), *(Pair(f"Phrase {n}", f"Line {n}") for n in range(4))]
    for language, train, test in (("de", german, [shared]), ("fr", french, [Pair("Non", "No")])):
        for part, pairs in (("train", train), ("valid", [*test, Pair("Ja", "Yes")]), ("test", test)):
            lines = "".join(f"{pair.source}\t{pair.english}\n" for pair in pairs)
            (tmp_path / f"{language}-{part}.tsv").write_text(lines, encoding="utf8")
        settings = CorpusSettings(
            train=("{data}/{language}-train.tsv",),
            valid=("{data}/{language}-valid.tsv",),
            test=("{data}/{language}-test.tsv",),
        )
        (tmp_path / language).mkdir()
        report = write_corpus(settings, language, str(tmp_path), tmp_path / language)
        assert (report.tested, report.pairs["valid"]) == (1, 1)
    both = [list(pairs) for pairs in read_training([tmp_path / "de", tmp_path / "fr"])]
    assert both == [german, french[1:]]
    assert [list(pairs) for pairs in read_training([tmp_path / "fr"])] == [french]
