"""Distillation: the target answers, every question is accounted for, and an interruption leaves no trace."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_tokenizer
from tiny_target import save_target

from common.engine.reference import generate_plain, logits_of
from common.models import load_model, load_tokenizer
from common.types import GenerationRequest, SamplingParams
from train.distillation import distill as distilling
from train.distillation import store
from train.distillation.answers import Answer, DistillationError, Prompt, Question, Rejected, answered, rejected
from train.distillation.distill import distill
from train.distillation.language import LanguageFilter
from train.distillation.settings import DistillSettings, EndpointSettings, estimate_bytes
from train.distillation.shards import Distillation, ShardMaker
from train.distillation.store import Counts, read_answers, read_counts, read_documents

SETTINGS = DistillSettings(prompts=5, max_tokens=6, concurrency=3, shard_answers=6, seed=7)
TEXTS = ("Das Haus", "Das Haus ist klein, aber schön.", "東京", "Дом маленький", "the house")


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target"))


def work_of(target: Path, folder: Path, *, texts: tuple[str, ...] = TEXTS, **settings: Any) -> Distillation:
    tokens = load_tokenizer(target)(list(texts))["input_ids"]
    return Distillation(
        folder=folder,
        target=target,
        target_key="one",
        language="de",
        prompts=[Prompt(text, tuple(ids)) for text, ids in zip(texts, tokens, strict=True)],
        settings=msgspec.structs.replace(SETTINGS, **settings),
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_answers_are_the_targets_own_at_every_temperature(target: Path, tmp_path: Path) -> None:
    work = work_of(target, tmp_path)
    totals = [counts.total for counts in distill(work)]
    assert totals == [0, 6, 12, 18, 20], "five prompts at four temperatures, in shards of six"
    assert read_counts(tmp_path) == Counts(success=20)
    model, answers = logits_of(load_model(target)), list(read_answers(tmp_path))
    assert [answer.number for answer in answers] == list(range(20))
    assert {answer.temperature for answer in answers} == {0.0, 0.3, 0.7, 1.0}
    assert len({answer.output for answer in answers}) > 10
    for answer in answers:
        expected = generate_plain(
            model,
            GenerationRequest(
                prompt=work.prompts[answer.number // 4].tokens,
                max_tokens=6,
                sampling=SamplingParams(temperature=answer.temperature, seed=7 + answer.number),
                stop_token_ids=frozenset({1}),
            ),
        )
        assert answer.output == expected
    document = next(read_documents(tmp_path))
    assert document.tokens == [*answers[0].prompt, *answers[0].output]
    assert document.loss_from == len(work.prompts[0].tokens), "the loss is on the answer alone"
    assert document.teacher is None


def test_an_answer_ends_where_the_targets_makers_say(target: Path, tmp_path: Path) -> None:
    """And not only at its tokenizer's end of a document."""
    chat = shutil.copytree(target, tmp_path / "chat")
    list(distill(work_of(target, tmp_path / "before", temperatures=(0.0,))))
    longest = max((answer.output for answer in read_answers(tmp_path / "before")), key=len)
    (chat / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, longest[1]]}))
    list(distill(work_of(chat, tmp_path / "after", temperatures=(0.0,))))
    outputs = [answer.output for answer in read_answers(tmp_path / "after")]
    assert longest[: longest.index(longest[1]) + 1] in outputs and longest not in outputs


@pytest.mark.parametrize("interrupted_after", [0, 1, 3])
def test_an_interrupted_run_ends_with_the_files_of_an_undisturbed_one(
    target: Path, tmp_path: Path, interrupted_after: int
) -> None:
    work = work_of(target, tmp_path / "whole", teacher="sampled", teacher_k=3)
    list(distill(work))
    run = distill(replace(work, folder=tmp_path / "cut"))
    for _ in range(interrupted_after + 1):
        next(run)
    run.close()
    half = tmp_path / "cut" / ".shard-00002-half"
    half.mkdir()
    (half / "answers.jsonl").write_text("{")
    assert next(distill(replace(work, folder=tmp_path / "cut"))).total == min(6 * interrupted_after, 20)
    list(distill(replace(work, folder=tmp_path / "cut")))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_whole_shards_are_not_made_again(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_of(target, tmp_path)
    list(distill(work))
    monkeypatch.setattr(distilling, "ShardMaker", None)
    assert [counts.total for counts in distill(work)] == [20]


def test_answers_are_the_same_whatever_the_number_of_actors(ray_cluster: None, target: Path, tmp_path: Path) -> None:
    work = work_of(target, tmp_path / "1", teacher="top_k", teacher_k=3)
    list(distill(work))
    two = work_of(target, tmp_path / "2", teacher="top_k", teacher_k=3, actors=2)
    totals = [counts.total for counts in distill(two)]
    assert totals[0] == 0 and totals[-1] == 20 and len(totals) == 5
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_what_fails_on_an_actor_is_told_as_in_process(ray_cluster: None, target: Path, tmp_path: Path) -> None:
    with pytest.raises(DistillationError, match="prompt of 80 tokens"):
        list(distill(work_of(target, tmp_path, texts=("x" * 80,), actors=2)))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 8}, "seed"), ({"max_tokens": 5}, "max_tokens"), ({"texts": ("Haus",)}, "prompts")],
)
def test_answers_of_other_inputs_are_never_added_to(
    target: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    list(distill(work_of(target, tmp_path)))
    before = files(tmp_path)
    with pytest.raises(DistillationError, match=rf"answers made with another {named}$"):
        next(distill(work_of(target, tmp_path, **change)))
    assert files(tmp_path) == before


def test_a_prompt_too_long_is_an_error_with_its_reason_and_the_others_are_answered(
    target: Path, tmp_path: Path
) -> None:
    work = work_of(target, tmp_path, texts=(*TEXTS, "x" * 80), max_error_share=0.9)
    *_, counts = distill(work)
    assert counts == Counts(success=20, error=4) and counts.total == work.total
    errors = [
        msgspec.json.decode(line, type=Rejected)
        for path in sorted(tmp_path.glob("shard-*/errors.jsonl"))
        for line in path.read_bytes().splitlines()
    ]
    assert [error.number for error in errors] == [20, 21, 22, 23]
    assert errors[0].reason == "prompt of 80 tokens, the target's context has room for 58"


def test_too_many_errors_fail_the_stage_and_are_asked_again(target: Path, tmp_path: Path) -> None:
    work = work_of(target, tmp_path, texts=("Haus", "x" * 80), temperatures=(0.0,), max_error_share=0.1)
    with pytest.raises(DistillationError, match=r"1 questions without an answer .* max_error_share 0.1 .* 80 tokens"):
        list(distill(work))
    assert store.missing(tmp_path, 1) == [0]


class Scripted:
    """Answers each prompt with the text behind its `=`, or not at all."""

    def __init__(self, target: Path) -> None:
        self._tokenizer = load_tokenizer(target)

    def answer(self, questions: list[Question]) -> list[Answer | Rejected]:
        texts = [question.prompt.text.partition("=")[2] for question in questions]
        return [
            answered(question, self._tokenizer(text)["input_ids"]) if text else rejected(question, "silence")
            for question, text in zip(questions, texts, strict=True)
        ]


def test_answers_in_the_wrong_language_are_skipped_and_every_question_is_accounted_for(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ("a=The house is small but very pretty.", "b=Das Haus ist klein, aber sehr schön.", "c=", "d=Haus!", "e=42")
    work = work_of(target, tmp_path, texts=texts, temperatures=(0.0,), answer_language="en", max_error_share=0.5)
    monkeypatch.setattr("train.distillation.shards.EngineAnswers", lambda *_: Scripted(target))
    *_, counts = distill(work)
    assert counts == Counts(success=3, error=1, skipped=1) and counts.total == 5
    assert [answer.number for answer in read_answers(tmp_path)] == [0, 3, 4], "short ones are kept"
    [skipped] = (tmp_path / "shard-00000" / "skipped.jsonl").read_bytes().splitlines()
    assert msgspec.json.decode(skipped, type=Rejected).reason.startswith("in `de`, not `en`: Das Haus")


def test_nothing_left_is_an_error(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.distillation.shards.EngineAnswers", lambda *_: Scripted(target))
    texts = ("a=Das Haus ist klein, aber sehr schön.",)
    with pytest.raises(DistillationError, match="no answer left, 0 errors, 1 skipped"):
        list(distill(work_of(target, tmp_path, texts=texts, temperatures=(0.0,), answer_language="en")))


def test_a_full_disk_leaves_no_half_shard(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_of(target, tmp_path, teacher="top_k")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "save_file", full)
        with pytest.raises(DistillationError, match=r"shard-00000 cannot be written: .*No space left"):
            list(distill(work))
    assert list(files(tmp_path)) == ["manifest.json"]
    *_, counts = distill(work)
    assert counts.success == 20


def test_a_shard_that_another_process_finished_first_stays(target: Path, tmp_path: Path) -> None:
    work = work_of(target, tmp_path)
    list(distill(work))
    before = files(tmp_path)
    ShardMaker(work).make(1)
    assert files(tmp_path) == before


def test_the_filter_looks_at_languages_in_other_scripts_too() -> None:
    keeps = LanguageFilter(tiny_tokenizer.byte_level(), "en", "ja")
    encode = tiny_tokenizer.byte_level()
    assert keeps.objection(tuple(encode("私の家はとても小さいです。")["input_ids"])) is not None
    assert keeps.objection(tuple(encode("My house is very small indeed.")["input_ids"])) is None


def test_the_size_is_stated_before_the_run_and_is_about_right(target: Path, tmp_path: Path) -> None:
    work = work_of(target, tmp_path, teacher="top_k", teacher_k=16)
    list(distill(work))
    tokens = [len(answer.output) for answer in read_answers(tmp_path)]
    laws = sum(path.stat().st_size for path in tmp_path.rglob("teacher.safetensors"))
    stated = estimate_bytes(work.settings, 5, sum(tokens) / 20)
    assert laws == pytest.approx(sum(tokens) * 16 * 6, rel=0.1), "headers are small"
    assert stated == pytest.approx(sum(len(content) for content in files(tmp_path).values()), rel=0.3)
    assert estimate_bytes(work.settings, 99, 6.0) == estimate_bytes(work.settings, 5, 6.0), "never more than asked"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperatures": ()}, "temperatures are"),
        ({"temperatures": (-1.0,)}, "temperatures are"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"max_error_share": 1.5}, "max_error_share is 1.5"),
        ({"answer_language": "xx"}, "unknown language `xx`"),
        ({"actors": 2, "endpoint": EndpointSettings(base_url="http://x/v1", model="m")}, "endpoint is asked by one"),
    ],
)
def test_bad_settings_are_refused_by_name(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillSettings(**({"prompts": 1} | bad))


def test_the_number_of_actors_is_no_input_of_the_answers() -> None:
    more = msgspec.structs.replace(SETTINGS, actors=4, cpus_per_actor=2, max_error_share=0.5)
    assert more.inputs == SETTINGS.inputs
    assert msgspec.structs.replace(SETTINGS, teacher="top_k").inputs != SETTINGS.inputs
