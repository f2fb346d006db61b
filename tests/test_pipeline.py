"""The training side end to end, tiny: text in, published drafters out, each stage done once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cluster.config import load_config
from common.registry import Registry
from train.pipeline import Pipeline, PipelineError
from train.recipe import Recipe
from train.stages import stage


def tiny_recipe() -> Recipe:
    """The quickstart's, made small."""
    replace = msgspec.structs.replace
    recipe = load_config("quickstart").train
    assert recipe.target is not None
    shape = replace(recipe.drafter, hidden_size=16, num_heads=2, intermediate_size=32)
    loop = replace(recipe.pretrain, steps=3, rows_per_step=4, row_length=64, micro_rows=2)
    return replace(
        recipe,
        corpus=replace(recipe.corpus, min_pairs=10, valid_share=0.1, test_share=0.2),
        target=replace(recipe.target, shape=shape, vocab_size=400, loop=replace(loop, zero_stage=1)),
        drafter=shape,
        pretrain=loop,
        distill=replace(recipe.distill, prompts=5, concurrency=4, max_tokens=6),
        finetune=loop,
        evaluate=replace(recipe.evaluate, prompts=3, max_tokens=6),
        generic=True,
    )


def write_text(folder: Path, language: str, source: str) -> None:
    lines = "".join(f"{source.format(number)}\tNumber {number} is here.\n" for number in range(60))
    (folder / f"{language}.tsv").write_text(lines, encoding="utf8")


def test_pipeline_publishes_resumes_and_isolates_a_failing_language(ray_cluster: None, tmp_path: Path) -> None:
    write_text(tmp_path, "de", "Die Nummer {} ist hier.")
    (tmp_path / "fr.tsv").write_text("no tab in this line\n", encoding="utf8")
    registry = str(tmp_path / "registry")

    def run(recipe: Recipe) -> Pipeline:
        return Pipeline(recipe, ["de", "fr"], run=tmp_path / "run", data=str(tmp_path), target=None, registry=registry)

    with pytest.raises(PipelineError, match=r"fr: corpus: .*fr\.tsv:1"):
        run(tiny_recipe()).run()
    assert Registry(registry).current("de") is None, "the target is made from all languages: nothing else was begun"

    write_text(tmp_path, "fr", "Le numéro {} est ici.")
    published = run(tiny_recipe()).run()
    assert set(published) == {"de", "fr"} and published["de"].version == "v0001"
    assert {"de/mean_acceptance_length/T=0", "generic/mean_acceptance_length/T=1"} <= published["de"].metrics.keys()
    models = sorted((tmp_path / "run").glob("*/*/model/model.safetensors"))
    assert len(models) == 5  # pretrain and finetune of two languages, and the generic drafter
    written = {path: path.stat().st_mtime_ns for path in models}

    assert run(tiny_recipe()).run() == published, "nothing is done twice"
    assert {path: path.stat().st_mtime_ns for path in models} == written

    longer = msgspec.structs.replace(tiny_recipe().evaluate, prompts=4)
    again = run(msgspec.structs.replace(tiny_recipe(), evaluate=longer)).run()
    assert again["de"].version == "v0002", "what depends on the change is done anew"
    assert {path: path.stat().st_mtime_ns for path in models} == written, "and nothing else"


def test_a_stage_is_done_for_its_inputs_only(tmp_path: Path) -> None:
    first = stage(tmp_path, "de/corpus", tiny_recipe().corpus, "de")
    assert not first.done
    first.begin()
    (first.folder / "half").touch()
    first.begin()
    assert (first.folder / "half").exists(), "what the same inputs left unfinished is kept, to be resumed"
    first.finish(pairs=3)
    assert first.done and first.facts() == {"pairs": 3}
    other = stage(tmp_path, "de/corpus", tiny_recipe().corpus, "fr")
    assert not other.done
    other.begin()
    assert not (first.folder / "half").exists(), "what other inputs left behind is cleared"
    assert stage(tmp_path, "x", first).key != stage(tmp_path, "x", other).key
