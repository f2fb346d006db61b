"""The training side end to end, tiny: text in, published drafters out, each stage done once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import killed_run
import msgspec
import pytest
import ray
from tiny_recipe import tiny_recipe, write_text
from tiny_target import save_target

from common.registry import Registry
from train.executor import StepFailure
from train.lines import read_lines
from train.pipeline import Pipeline, PipelineError
from train.plan import Plan
from train.progress import Progress, log_path
from train.provenance import provenance
from train.recipe import PublishSettings, Recipe
from train.results import as_builtins, results, table
from train.selection import since
from train.stages import stage
from train.step import Step

REPLACE = msgspec.structs.replace


def test_pipeline_publishes_resumes_and_isolates_a_failing_language(ray_cluster: None, tmp_path: Path) -> None:
    write_text(tmp_path, "de", "Die Nummer {} ist hier.")
    (tmp_path / "fr.tsv").write_text("no tab in this line\n", encoding="utf8")
    registry = str(tmp_path / "registry")

    def run(recipe: Recipe) -> Pipeline:
        plan = Plan(recipe, ["de", "fr"], run=tmp_path / "run", data=str(tmp_path), target=None, registry=registry)
        return Pipeline(plan.steps)

    recipe = REPLACE(tiny_recipe(), generic=True)
    with pytest.raises(PipelineError, match=r"fr: corpus: .*fr\.tsv:1"):
        run(recipe).run()
    assert Registry(registry).current("de") is None, "the target is made from all languages: nothing else was begun"

    write_text(tmp_path, "fr", "Le numéro {} est ici.")
    published = run(recipe).run()
    assert set(published) == {"de", "fr"} and published["de"].version == "v0001"
    wanted = {"mean_acceptance_length/T=0", "acceptance_rate/T=1", "accepted_at_1/T=1", "speedup/T=1"}
    assert wanted <= published["de"].metrics.keys()
    assert published["de"].provenance["command"] == provenance()["command"], "the command that somebody gave"
    models = sorted((tmp_path / "run").glob("*/*/model/model.safetensors"))
    assert len(models) == 5  # pretrain and finetune of two languages, and the generic drafter
    written = {path: path.stat().st_mtime_ns for path in models}

    again = run(recipe)
    assert again.run() == published, "nothing is done twice"
    assert {path: path.stat().st_mtime_ns for path in models} == written
    figures = as_builtins(results(again.steps.values()))
    assert figures.keys() == {"de", "fr"} and figures["de"].keys() == {"finetune", "generic"}
    assert figures["de"]["finetune"] == published["de"].metrics
    assert table(results(again.steps.values())).row_count == 4

    longer = REPLACE(recipe, evaluate=REPLACE(recipe.evaluate, prompts=4))
    assert run(longer).run()["de"].version == "v0002", "what depends on the change is done anew"
    assert {path: path.stat().st_mtime_ns for path in models} == written, "and nothing else"

    assert Registry(registry).rollback("de") == "v0001"
    assert run(longer).run()["de"].version == "v0002"
    current = Registry(registry).current("de")
    assert current is not None and current.version == "v0001", "what an operator has decided is left alone"

    (tmp_path / "run" / "fr" / "finetune" / "rows" / "labels.npy").unlink()
    strict = REPLACE(longer, publish=PublishSettings(require_speedup=1e9))
    refused = run(strict)
    again = [*since(refused.steps, "publish", ["de"]), *since(refused.steps, "evaluate", ["fr"])]
    (tmp_path / "run" / "fr" / "finetune" / "stage.json").unlink()
    with pytest.raises(PipelineError) as failed:
        refused.run(again)
    assert "de: publish: finetune: speed over plain decoding is" in str(failed.value)
    assert "fr: finetune: " in str(failed.value) and "labels.npy" in str(failed.value)
    assert set(refused.failures) == {"de/publish/finetune", "fr/finetune"}, "what needs a failed step is not begun"
    assert [manifest.version for manifest in Registry(registry).versions("de")] == ["v0001", "v0002"]


class FakeExecutor:
    """Every step leaves an empty stage, but for French text, which cannot be read."""

    def __init__(self, _: object) -> None:
        pass

    async def carry_out(self, step: Step) -> None:
        step.stage.begin()
        if step.stage.name == "fr/corpus":
            raise StepFailure("not UTF-8")
        step.stage.finish()


def test_text_that_cannot_be_read_takes_with_it_what_is_made_from_it(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.pipeline.Executor", FakeExecutor)
    recipe, target = REPLACE(tiny_recipe(), generic=True), save_target(tmp_path / "target")
    plan = Plan(recipe, ["de", "fr"], run=tmp_path / "run", data="", target=target, registry=str(tmp_path / "registry"))
    pipeline = Pipeline(plan.steps)
    with pytest.raises(PipelineError, match=r"^fr: corpus: not UTF-8$"):
        pipeline.run()
    done = {name for name, step in plan.steps.items() if step.stage.done}
    assert done == {name for name in plan.steps if name.startswith("de/")} - {"de/evaluate/generic"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_in_every_stage_ends_with_the_same_weights(ray_cluster: None, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for folder in (undisturbed, disturbed):
        folder.mkdir()
        save_target(folder / "target")
        write_text(folder, "de", "Die Nummer {} ist hier.")
    Pipeline(killed_run.plan(undisturbed).steps).run()
    kills = (
        ("begin", "de/corpus"),
        ("train", "de/pretrain"),
        ("update", "de/distill"),
        ("train", "de/finetune"),
        ("update", "de/evaluate/finetune"),
        ("begin", "de/publish/finetune"),
    )
    for kill in kills:
        assert _run_until(disturbed, *kill) == -signal.SIGKILL, kill
    assert Registry(disturbed / "registry").current("de") is None, "nothing is published by halves"
    published = Pipeline(killed_run.plan(disturbed).steps).run()
    assert published["de"].version == "v0001"
    for model in ("de/pretrain", "de/finetune"):
        path = Path("run", model, "model", "model.safetensors")
        assert (undisturbed / path).read_bytes() == (disturbed / path).read_bytes(), model
        resumed = _resumed_after(disturbed / "run" / model / "model")
        assert resumed and all(step and step % killed_run.CHECKPOINT_EVERY == 0 for step in resumed), model


def _resumed_after(output: Path) -> list[int]:
    """Steps: each attempt's clock begins anew."""
    lines = [msgspec.json.decode(line, type=Progress) for line in read_lines(log_path(output))]
    return [before.step for before, after in pairwise(lines) if after.elapsed_s < before.elapsed_s]


def _run_until(folder: Path, event: str, stage: str) -> int:
    here = Path(__file__).parent
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "RAY_ADDRESS": address}
    command = [sys.executable, str(here / "killed_run.py"), str(folder), event, stage]
    return subprocess.run(command, env=environment, timeout=120, check=False).returncode


def test_a_stage_is_done_for_its_inputs_only(tmp_path: Path) -> None:
    first = stage(tmp_path, "de/corpus", corpus=tiny_recipe().corpus, language="de")
    assert not first.done
    first.begin()
    (first.folder / "half").touch()
    first.begin()
    assert (first.folder / "half").exists(), "what the same inputs left unfinished is kept, to be resumed"
    first.finish(pairs=3)
    assert first.done and first.facts() == {"pairs": 3}
    other = stage(tmp_path, "de/corpus", corpus=tiny_recipe().corpus, language="fr")
    assert not other.done
    other.begin()
    assert not (first.folder / "half").exists(), "what other inputs left behind is cleared"
    assert stage(tmp_path, "x", corpus=first).key != stage(tmp_path, "x", corpus=other).key
