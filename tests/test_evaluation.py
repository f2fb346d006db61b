"""The evaluation lab's core: test sets, measuring in turns, records that survive a crash, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import byte_level

from common.engine.decoding import Decoder
from common.engine.lookup import LookupEngine
from train.evaluation.intervals import Interval, difference_of_means, jackknife, ratio, ratio_of_ratios
from train.evaluation.measuring import Measurement, Timing, ways
from train.evaluation.methods import LOOKUP, PLAIN, Decoders, Method, find_methods
from train.evaluation.questions import Question, TestSet, TestSetSettings, corpus_test_set, read_test_set
from train.evaluation.records import Record, Records
from train.evaluation.summary import WayKey, acceptance_ratio, group, summarise
from train.pair import CorpusError, Pair

TEMPLATE = "Translate {language} to English:{source}\n"


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf8")
    return str(path)


def read(source: str, count: int = 9) -> TestSet:
    return read_test_set(TestSetSettings(name="set", source=source), "de", "", template=TEMPLATE, count=count)


def test_the_papers_question_file(tmp_path: Path) -> None:
    row = {"question_id": "wmt16_deen_1", "category": "deen", "turns": ["Translate German to English:Nein!"]}
    [question] = read(write(tmp_path / "question.jsonl", row)).questions
    assert question == Question(id="wmt16_deen_1", prompt="Translate German to English:Nein!\n", source="Nein!")


def test_spec_bench_with_a_reference_is_asked_its_first_turn(tmp_path: Path) -> None:
    row = {
        "question_id": 81,
        "category": "math",
        "turns": ["One plus one?", "Are you sure?"],
        "reference": ["2", "Yes"],
    }
    [question] = read(write(tmp_path / "spec.jsonl", row)).questions
    assert question == Question(id="81", prompt="One plus one?\n", source="One plus one?", reference="2")


def test_parallel_text_is_asked_as_in_training(tmp_path: Path) -> None:
    (tmp_path / "set.tsv").write_text("Ja.\tYes.\nNein.\tNo.\n", encoding="utf8")
    found = read(str(tmp_path / "set.tsv")).questions
    assert sorted(q.prompt for q in found) == [f"Translate German to English:{word}.\n" for word in ("Ja", "Nein")]
    assert {q.reference for q in found} == {"Yes.", "No."}


def test_a_sample_does_not_depend_on_the_order_and_a_larger_one_holds_it() -> None:
    pairs = [Pair(f"Satz {n}", f"Sentence {n}") for n in range(50)]

    def sources(pairs: Iterable[Pair], count: int) -> list[str]:
        return [q.source for q in corpus_test_set("de", pairs, template=TEMPLATE, count=count).questions]

    assert sources(pairs, 5) == sources(reversed(pairs), 5) == sources(pairs, 20)[:5]
    assert sources(pairs, 5) != [pair.source for pair in pairs[:5]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question_id": 1, "turns": "What?"}, r"question.jsonl:1: not a question: .*turns"),
        ({"question_id": 1, "turns": []}, "question.jsonl:1: a question without turns"),
        ({"question_id": 1, "turns": [" "]}, "question.jsonl:1: an empty turn"),
        ({"turn": ["x"]}, "question.jsonl:1: expected"),
    ],
)
def test_a_broken_question_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read(write(tmp_path / "question.jsonl", row))


def test_two_questions_of_the_same_name_are_refused(tmp_path: Path) -> None:
    row = {"question_id": 1, "turns": ["What?"]}
    with pytest.raises(CorpusError, match="two questions are called 1"):
        read(write(tmp_path / "question.jsonl", row, row))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=30))
def test_an_interval_lies_around_the_figure(items: list[tuple[int, int]]) -> None:
    found = jackknife(items, ratio)
    assert found.value == pytest.approx(sum(a for a, _ in items) / sum(b for _, b in items), abs=1e-4)
    assert found.high - found.value == pytest.approx(found.value - found.low, abs=2e-4)


def test_of_a_mean_it_is_the_interval_of_student() -> None:
    found = jackknife([(1.0, 1.0), (2.0, 1.0), (6.0, 1.0)], ratio)
    assert found.value == 3.0
    assert found.high - 3.0 == pytest.approx(4.303 * (7 / 3) ** 0.5, rel=1e-3)


def test_an_item_without_which_there_is_nothing_says_nothing_of_the_spread() -> None:
    assert jackknife([(4.0, 2.0)], ratio) == Interval(value=2.0, low=2.0, high=2.0)
    assert jackknife([(4.0, 2.0), (0.0, 0.0), (0.0, 0.0)], ratio).value == 2.0
    assert jackknife([(3.0, 2.0, 1.0)], difference_of_means) == Interval(value=1.0, low=1.0, high=1.0)
    assert jackknife([(5.0, 1.0, 0.0, 1.0), (5.0, 1.0, 3.0, 1.0)], ratio_of_ratios).value == pytest.approx(3.3333)


@pytest.mark.parametrize("count", [3, 4, 8, 40])
def test_an_interval_covers_the_truth_about_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(count)
    covered = 0
    for _ in range(400):
        rounds = generator.poisson(6, count) + 1.0
        tokens = rounds + generator.binomial(rounds.astype(int), 0.5)
        found = jackknife(np.stack([tokens, rounds], 1), ratio)
        covered += found.low <= 1.5 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_what_is_paired_is_known_better_than_what_is_not() -> None:
    slowness = np.random.default_rng(1).uniform(1, 9, 30)
    paired = np.stack([slowness * 2, np.ones(30), slowness, np.ones(30)], 1)
    found = jackknife(paired, ratio_of_ratios)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert jackknife(paired[:, :2], ratio).high > 1.1 * jackknife(paired[:, :2], ratio).low


def test_lookup_drafts_what_followed_before() -> None:
    [request] = tiny.requests(1, temperature=0.0)
    request = msgspec.structs.replace(request, prompt=(5, 6, 7, 8, 5, 6), stop_token_ids=frozenset())
    [plain] = Decoder(tiny.verifier(tiny.model())).generate([request])
    [looked_up] = Decoder(tiny.verifier(tiny.model()), LookupEngine(), draft_length=2).generate([request])
    assert looked_up.output == plain.output
    assert looked_up.rounds[0][0] == 2 and looked_up.stats.drafted_tokens == sum(d for d, _ in looked_up.rounds)


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "de" / "finetune" / "model"
    tiny.perturbed(tiny.model(vocabulary=len(byte_level())), 0.1).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


def measurement(path: Path, methods: list[Method], questions: int = 3) -> Measurement:
    test_set = TestSet(
        name="set",
        language="de",
        task="translation",
        questions=[Question(id=f"{n}", prompt="ab" * (n + 1), source="x") for n in range(questions)],
    )
    decoders = Decoders(tiny.model(vocabulary=len(byte_level())), max_length=64, concurrency=1)
    timing = Timing(max_tokens=8, repetitions=2)
    tokenizer = byte_level()
    return Measurement(
        decoders, tokenizer, frozenset({1}), test_set, ways(methods, [0.0, 1.0], 3), timing, Records(path)
    )


def test_a_run_that_was_broken_off_goes_on_and_repeats_nothing(tmp_path: Path, drafter: Path) -> None:
    path = tmp_path / "records.jsonl"
    methods = [Method(name=PLAIN), Method(name=LOOKUP), Method(name="P+F", drafter=drafter)]
    running = measurement(path, methods).run()
    assert next(running) == 1 and next(running) == 1
    running.close()
    kept = path.read_bytes()
    path.write_bytes(kept + b'{"test_set": "se')  # the process died while it wrote
    assert len(list(measurement(path, methods).run())) == 2 * 3 - 2
    assert path.read_bytes().startswith(kept)
    assert list(measurement(path, methods).run()) == []
    summaries = summarise(Records(path))
    assert [s.way.method for s in summaries] == ["P+F", LOOKUP, PLAIN] * 2
    assert all(s.unequal == 0 and s.questions == 3 for s in summaries)
    specialist, _, plain = summaries[:3]
    assert plain.mean_acceptance_length.value == plain.speedup.value == 1.0 < specialist.mean_acceptance_length.value


def record(method: str, question: str, tokens: int, seconds: float, rounds: list[tuple[int, int]]) -> Record:
    return Record(
        test_set="set",
        language="de",
        question=question,
        method=method,
        temperature=0.0,
        draft_length=0 if method == PLAIN else 4,
        repetition=0,
        output=list(range(tokens)),
        text="x" * 2 * tokens,
        rounds=rounds,
        first_s=0.5,
        total_s=seconds,
        draft_s=0.2 if method != PLAIN else 0.0,
        verify_s=0.8,
    )


def test_figures_by_hand() -> None:
    records = [
        record(PLAIN, "a", 8, 8.5, [(0, 0)] * 8),
        record("P+F", "a", 8, 2.5, [(4, 3), (4, 3)]),
        record(PLAIN, "b", 2, 2.5, [(0, 0)] * 2),
        record("P+F", "b", 2, 1.5, [(4, 0), (4, 0)]),
    ]
    specialist, _ = summarise(records)
    assert specialist.mean_acceptance_length.value == 10 / 4
    assert specialist.accepted_per_position == [0.5, 0.5, 0.5, 0.0]
    assert specialist.speedup.value == 11 / 4
    # Without the first round: 4 + 1 tokens in 2 + 1 s, against 7 + 1 tokens in 8 + 2 s.
    assert specialist.decode_speedup is not None
    assert specialist.decode_speedup.value == pytest.approx((5 / 3) / (8 / 10), abs=1e-4)
    # Plain verification takes 1.6 s for 10 tokens, the forward passes of 10 drafted ones 2 s.
    assert specialist.predicted_speedup == 0.8
    assert (specialist.draft_ms, specialist.verify_ms) == (100.0, 400.0)
    assert (specialist.tokens_per_s, specialist.characters_per_s) == (2.5, 5.0)
    groups, way = group(records), WayKey("set", "de", 0.0, "P+F", 4)
    assert acceptance_ratio(groups[way], groups[way.plain]).value == 2.5


def test_texts_that_differ_from_plain_ones_are_counted() -> None:
    records = [record(PLAIN, "a", 8, 8.5, [(0, 0)] * 8), record("P+F", "a", 7, 2.5, [(4, 3), (4, 2)])]
    assert [summary.unequal for summary in summarise(records)] == [1, 0]


def test_a_runs_drafters_are_found(tmp_path: Path) -> None:
    for name in ("generic/pretrain", "de/pretrain", "de/finetune", "de/finetune-alone", "de/finetune-lk"):
        (tmp_path / name / "model").mkdir(parents=True)
    (tmp_path / "de/finetune-scaling_pf_150_0/model").mkdir(parents=True)  # a point of a line, no way to decode
    found = [method.name for method in find_methods(tmp_path, "de")]
    assert found == [PLAIN, LOOKUP, "generic", "P", "F", "P+F", "P+F lk"]
