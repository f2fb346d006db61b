"""The plan of a run: which steps there are, what they need, and which ones some languages need."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tiny_recipe import write_text

from cluster import train_command
from cluster.config import load_config
from common.settings import SettingsError
from train.plan import Plan
from train.recipe import Recipe
from train.selection import of_owners, since
from train.stages import Stage
from train.step import STAGES

EVERYTHING = (
    "train.generic=true",
    "train.generalist=true",
    "train.ablations=true",
    "train.ngram={}",
    "train.refresh={answers: {prompts: 1}, loop: {steps: 1, rows_per_step: 1, learning_rate: 1.0,"
    " objective: {terms: {tv: 1.0}, teacher: online}}}",
    "train.variants={lk: {loop: {objective: {terms: {lk: 1.0}, teacher: online}}}}",
)


def recipe(*overrides: str) -> Recipe:
    return load_config("quickstart", overrides).train


def plan(recipe: Recipe, folder: Path) -> Plan:
    return Plan(recipe, ["de", "fr"], run=folder, data="d", target=None, registry=str(folder / "registry"))


def test_every_step_comes_after_what_it_needs_and_is_of_a_known_kind(tmp_path: Path) -> None:
    seen: set[str] = set()
    for name, step in plan(recipe(*EVERYTHING), tmp_path).steps.items():
        assert {need.name for need in step.needs} <= seen and step.kind in STAGES
        seen.add(name)
    assert {step.rpartition("/")[2] for step in seen if step.startswith("de/evaluate/")} == {
        *("refresh", "finetune", "finetune-lk", "finetune-alone", "pretrain", "ngram", "generic", "generalist")
    }
    published = {s.place.name for s in plan(recipe(*EVERYTHING), tmp_path).steps.values() if s.place}
    assert published == {"de", "fr", "de-ngram", "fr-ngram", "generalist"}


def test_a_language_takes_with_it_the_target_and_no_other_languages_drafter(tmp_path: Path) -> None:
    steps = of_owners(plan(recipe(*EVERYTHING), tmp_path).steps, ["de"])
    assert {"target", "fr/corpus", "de/publish/refresh", "de/publish/ngram"} <= steps.keys()
    assert {step.owner for step in steps.values()} == {"de", "fr", "target"}
    assert [name for name in steps if name.startswith("fr/")] == ["fr/corpus"]


def test_a_comparison_with_a_baseline_that_is_there_is_made(tmp_path: Path) -> None:
    whole = plan(recipe("train.generic=true"), tmp_path)
    generic = whole.steps["generic/pretrain"].stage
    generic.begin()
    generic.finish()
    assert "de/evaluate/generic" in of_owners(whole.steps, ["de"])


def test_from_a_stage_on_means_it_and_all_that_builds_on_it_of_these_languages(tmp_path: Path) -> None:
    steps = plan(recipe(), tmp_path).steps
    after = ["de/finetune", "de/evaluate/finetune", "de/publish/finetune"]
    assert since(steps, "finetune", ["de"]) == after
    assert since(steps, "pretrain", ["de"]) == ["de/pretrain", *after], "answers do not depend on pretraining"
    assert since(steps, "distill", ["de"]) == ["de/distill", *after]
    assert set(since(steps, "target")) == steps.keys() - {"de/corpus", "fr/corpus"}
    assert since(steps, "ngram") == []
    with_baseline = plan(recipe("train.generic=true"), tmp_path).steps
    assert "de/evaluate/generic" in since(with_baseline, "pretrain")
    assert "de/evaluate/generic" not in since(with_baseline, "pretrain", ["de"]), "its drafter stays"


def test_a_setting_changes_the_stages_that_use_it_and_those_after(tmp_path: Path) -> None:
    before = {name: step.stage.key for name, step in plan(recipe(), tmp_path).steps.items()}
    after = {name: s.stage.key for name, s in plan(recipe("train.finetune.steps=7"), tmp_path).steps.items()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        f"{lang}/{s}" for lang in ("de", "fr") for s in ("finetune", "evaluate/finetune", "publish/finetune")
    }


def keys(*overrides: str) -> dict[str, str]:
    made = plan(recipe(*EVERYTHING, "train.pretrain.validate_every=50", *overrides), Path("nowhere"))
    return {name: step.stage.key for name, step in made.steps.items()}


@pytest.mark.parametrize(
    "override",
    [
        "train.pretrain.log_every=1",
        "train.finetune.checkpoint_every=10",
        "train.finetune.micro_rows=2",
        "train.pretrain.trackers=[mlflow]",
        "train.pretrain.peak_tflops=1.5",
        "train.target.loop.checkpoint_every=10",
        "train.target.workers.workers=2",
        "train.workers.cpus_per_worker=2",
        "train.distill.actors=2",
        "train.refresh.answers.concurrency=1",
        "train.evaluate.concurrency=1",
    ],
)
def test_settings_that_leave_the_results_alone_leave_the_stages_alone(override: str) -> None:
    assert keys(override) == keys()


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("train.evaluate.validation_prompts=3", {"pretrain"}),
        ("train.evaluate.max_tokens=7", {"pretrain", "evaluate"}),
        ("train.evaluate.dtype=bfloat16", {"pretrain", "evaluate"}),
        ("train.evaluate.prompts=7", {"evaluate"}),
        ("train.evaluate.gpus=0.5", {"evaluate"}),
        ("train.finetune.zero_stage=1", {"finetune"}),
        ("train.target.loop.seed=1", {"target"}),
    ],
)
def test_a_setting_changes_only_what_builds_on_what_it_is_about(override: str, kinds: set[str]) -> None:
    steps = plan(recipe(*EVERYTHING), Path("nowhere")).steps
    before, after = keys(), keys(override)
    assert {name for name in before if before[name] != after[name]} == {n for k in kinds for n in since(steps, k)}


def test_text_that_is_replaced_in_place_changes_all_that_is_made_from_it(tmp_path: Path) -> None:
    def made() -> dict[str, Stage]:
        steps = Plan(recipe(), ["de", "fr"], run=tmp_path, data=str(tmp_path), target=None, registry="registry").steps
        return {name: step.stage for name, step in steps.items()}

    before = made()
    before["de/corpus"].begin()
    write_text(tmp_path, "de", "Die Nummer {} ist hier.")
    after = made()
    assert {name for name in before if before[name].key == after[name].key} == {"fr/corpus"}
    assert str(after["de/corpus"].begin()).startswith("de/corpus is done anew: files.")


def test_a_checkpoint_that_is_replaced_in_place_changes_the_drafters_that_begin_with_it(tmp_path: Path) -> None:
    begun = recipe(f"train.initial={{start: checkpoint, checkpoint: {tmp_path / 'model'}}}", "train.ablations=true")
    (tmp_path / "model").mkdir()
    before = plan(begun, tmp_path).steps
    (tmp_path / "model" / "config.json").touch()
    after = plan(begun, tmp_path).steps
    changed = {name for name in before if before[name].stage.key != after[name].stage.key}
    assert changed == {*since(before, "pretrain"), *since(before, "finetune")}


def test_a_folder_made_by_other_settings_is_told_and_cleared(tmp_path: Path) -> None:
    made = plan(recipe(), tmp_path).steps["de/finetune"].stage
    assert made.begin() is None and made.begin() is None
    (made.folder / "left").touch()
    other = plan(recipe("train.finetune.steps=7"), tmp_path).steps["de/finetune"].stage
    assert other.begin() == "de/finetune is done anew: loop.steps is 7, was 150"
    assert not (made.folder / "left").exists()


def test_resuming_with_another_version_of_a_library_is_told(tmp_path: Path) -> None:
    stage = plan(recipe(), tmp_path).steps["de/finetune"].stage
    stage.begin()
    started = stage.folder / "started.json"
    record = msgspec.json.decode(started.read_bytes())
    record["provenance"]["versions"]["torch"] = "1.0"
    started.write_bytes(msgspec.json.encode(record))
    told = stage.begin()
    assert told is not None and "torch" in told and "begun with 1.0" in told


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.variants={a: {loop: {stepz: 3}}}", "variants.a.loop: unknown setting `stepz`"),
        ("train.variants={a: {loop: {steps: 0}}}", "steps is 0"),
        ("train.variants={alone: {loop: {steps: 3}}}", "`alone` cannot name a variant"),
        ("train.evaluate.speed_prompts=0", "speed_prompts is 0"),
        ("train.refresh={answers: {prompts: 1}, loop: {steps: 1, rows_per_step: 1, learning_rate: 1.0}}", "online"),
        (
            "train.refresh={answers: {prompts: 1}, loop: {steps: 1, rows_per_step: 1, learning_rate: 1.0,"
            " objective: {terms: {ce: 1.0}, teacher: online}}}",
            "ce would teach",
        ),
        ("train.pretrain.objective={terms: {forward_kl: 1.0}, teacher: stored}", "pretrain.objective.teacher"),
        ("train.finetune.objective={terms: {forward_kl: 1.0}, teacher: stored}", "distill.teacher"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(override: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        recipe(override)


def test_a_variant_differs_from_the_finetuning_only_as_it_says() -> None:
    made = recipe("train.variants={a: {loop: {steps: 3, objective: {terms: {tv: 1.0}, teacher: online}}}}")
    variant = made.finetuning("a")
    assert (variant.steps, variant.objective.terms, variant.objective.teacher) == (3, {"tv": 1.0}, "online")
    assert variant.learning_rate == made.finetune.learning_rate


def test_the_command_names_the_stages_that_there_are() -> None:
    assert train_command.STAGES == STAGES
