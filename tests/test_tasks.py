"""The work of every kind of stage, without Ray; training itself is left out: a model is what it began with."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from tiny_recipe import tiny_recipe, write_text

from common.registry import Registry
from common.settings import convert
from common.vocabulary import read_vocabulary
from train.executor import training_job
from train.plan import Plan
from train.recipe import Recipe
from train.results import results

MORE = {
    "generic": True,
    "generalist": True,
    "ablations": True,
    "ngram": {},
    "vocabulary": {"coverage": 0.99},
    "variants": {"lk": {"loop": {"objective": {"terms": {"lk": 1.0}, "teacher": "online"}}}},
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
    return msgspec.structs.replace(made, pretrain=msgspec.structs.replace(made.pretrain, validate_every=2))


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
    assert len(results(plan.steps.values())["de"]) == 8
    ids = read_vocabulary(tmp_path / "run" / "de" / "refresh" / "model")
    assert ids is not None and len(ids) < 400
