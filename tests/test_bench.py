"""Benchmarks run and end with one line of JSON; what they measure is not a test's business."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from ray import serve as ray_serve
from tiny_recipe import tiny_recipe, write_text
from tiny_target import save_target

from cluster.bench import acceptance, roundtrip
from cluster.config import load_config
from cluster.run import Run
from train.corpus import write_corpus
from train.evaluation.drafter import Evaluation, Models
from train.prompts import sample_prompts
from train.publishing import Place, publish


def test_roundtrip_reports(ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    roundtrip.main(100)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    ray_serve.shutdown()  # Serve's HTTP options are fixed by its first start; other tests bring their own
    assert {"p50_ms", "p99_ms", "handle_p50_ms", "ratio", "provenance"} <= figures.keys()
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]


def test_acceptance_is_that_of_the_runs_own_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, target = msgspec.structs.replace(tiny_recipe(), prompt="{source}"), save_target(tmp_path / "target")
    write_text(tmp_path, "de", "Nummer {}.")
    corpus = tmp_path / "de" / "corpus"
    corpus.mkdir(parents=True)
    write_corpus(recipe.corpus, "de", str(tmp_path), corpus)
    asked = sample_prompts(recipe, {"de": corpus}, target, "test", recipe.evaluate.prompts, max_tokens=6).tokens
    expected = Models(target, target, recipe.evaluate).acceptance(asked)
    registry = str(tmp_path / "registry")
    publish(Place(registry=registry, name="de"), target, target, Evaluation(acceptance=expected, speed=[]), {})
    config = msgspec.structs.replace(load_config("quickstart"), train=recipe)
    acceptance.main(Run(folder=tmp_path, config=config, given_target=target, registry=registry), None)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["languages"] == {"de": {"drafter": msgspec.to_builtins(expected)}}
