"""The work of every kind of stage, without Ray; training itself is left out: a model is what it began with."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from tiny_recipe import tiny_recipe, write_text

from common.registry import Registry
from common.settings import convert
from common.vocabulary import read_vocabulary
from train import tasks
from train.decontamination import HeldOut
from train.executor import training_job
from train.packing import PackedRows
from train.pair import Pair
from train.plan import Plan
from train.recipe import Recipe
from train.results import results
from train.stages import stage

MORE = {
    "generic": True,
    "generalist": True,
    "ablations": True,
    "ngram": {},
    "vocabulary": {"coverage": 0.99},
    "variants": {
        "lk": {"loop": {"objective": {"terms": {"lk": 1.0}, "teacher": "online"}}},
        "kl": {"loop": {"objective": {"terms": {"forward_kl": 1.0}, "teacher": "stored"}}},
    },
    "refresh": {
        "answers": {"prompts": 4, "max_tokens": 8},
        "loop": {
            "steps": 2,
            "rows_per_step": 4,
            "row_length": 64,
            "learning_rate": 0.1,
            "objective": {"terms": {"tv": 1.0}, "teacher": "online"},
        },
    },
}


def everything() -> Recipe:
    made = convert(msgspec.to_builtins(tiny_recipe()) | MORE, Recipe, where="test")
    return msgspec.structs.replace(
        made,
        pretrain=msgspec.structs.replace(made.pretrain, validate_every=2),
        distill=msgspec.structs.replace(made.distill, teacher="sampled", teacher_k=2),
    )


def test_every_step_leaves_what_those_after_it_need(tmp_path: Path) -> None:
    write_text(tmp_path, "de", "Die Nummer {} ist hier.")
    registry = str(tmp_path / "registry")
    plan = Plan(everything(), ["de"], run=tmp_path / "run", data=str(tmp_path), target=None, registry=registry)
    for name, step in plan.steps.items():
        step.stage.begin()
        for done, total in step.work(step.stage, *step.arguments):
            assert done <= total
        if step.training is not None:
            training_job(step, step.training).check(workers=1)
            shutil.copytree(step.training.initial, step.stage.folder / "model")
            step.stage.finish()
        assert step.done, name
    assert set(Registry(registry).languages()) == {"de", "de-ngram", "generalist"}
    assert len(results(plan.steps.values())["de"]) == 9
    rows = {name: PackedRows.load(tmp_path / "run" / "de" / name / "rows") for name in ("finetune", "finetune-kl")}
    assert {name: found.teacher_ids is not None for name, found in rows.items()} == {
        "finetune": False,
        "finetune-kl": True,
    }, "laws are read only where they are learned"
    ids = read_vocabulary(tmp_path / "run" / "de" / "refresh" / "model")
    assert ids is not None and len(ids) < 400


def test_the_english_that_languages_share_is_trained_on_once(tmp_path: Path) -> None:
    pairs = {"de": [Pair("eins", "one"), Pair("zwei", "two")], "fr": [Pair("un", "one"), Pair("trois", "three")]}
    texts = {language: stage(tmp_path, f"{language}/corpus") for language in pairs}
    for language, corpus in texts.items():
        corpus.begin()
        (corpus.folder / "train.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(pairs[language]))
        HeldOut().save(corpus.folder)
    assert list(tasks._english(texts)) == ["one", "two", "three"]


def test_a_record_of_other_figures_does_not_count_as_done(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    plan = Plan(everything(), ["de"], run=tmp_path / "run", data=str(tmp_path), target=None, registry=registry)
    step = plan.steps["de/evaluate/finetune"]
    step.stage.begin()
    step.stage.finish(acceptance=[], speed=[])
    assert step.done
    step.stage.finish(acceptance=[{"temperature": 0.0, "draft_length": 4}], speed=[])
    assert step.stage.done and not step.done and results([step]) == {}
