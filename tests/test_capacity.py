"""What a cluster cannot give is told before anything is done, by the setting that asks for it."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from tiny_recipe import tiny_recipe
from tiny_target import save_target

from common.settings import SettingsError
from train.capacity import Request, check
from train.pipeline import Pipeline
from train.plan import Plan
from train.recipe import WorkerSettings

REPLACE = msgspec.structs.replace
TWO_MACHINES = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        (Request(setting="s", parts=8), True),
        (Request(setting="s", parts=9), False),
        (Request(setting="s", cpus=4, parts=2), True),
        (Request(setting="s", cpus=5), False),  # no machine has as many
        (Request(setting="s", cpus=3, parts=3), False),
        (Request(setting="s", gpus=0.5, parts=2), True),
        (Request(setting="s", gpus=1, parts=2), False),
    ],
)
def test_every_part_has_to_fit_a_machine(request_: Request, fits: bool) -> None:
    assert request_.fits(TWO_MACHINES) == fits


def test_a_cluster_that_may_grow_is_only_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    wanted = [Request(setting="train.workers", parts=2, gpus=1)] * 2
    with pytest.raises(SettingsError, match=r"train\.workers: 2 × \(1 CPU, 1 GPU\) do not fit.* 8 CPU, 1 GPU on 2"):
        check(wanted, TWO_MACHINES, may_grow=False)
    with caplog.at_level(logging.WARNING):
        check(wanted, TWO_MACHINES, may_grow=True)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["train.workers"]


def test_a_run_asks_for_what_its_settings_say(tmp_path: Path) -> None:
    recipe, workers = tiny_recipe(), WorkerSettings(workers=2, cpus_per_worker=3, use_gpu=True, validation_gpus=0.5)
    asking = REPLACE(
        recipe,
        pretrain=REPLACE(recipe.pretrain, validate_every=1),
        distill=REPLACE(recipe.distill, actors=9, cpus_per_actor=2),
        evaluate=REPLACE(recipe.evaluate, gpus=0.25),
        workers=workers,
    )
    steps = Plan(asking, ["de"], run=tmp_path, data="", target=None, registry="registry").steps
    training = Request(setting="train.workers", parts=2, cpus=3, gpus=1)
    assert steps["de/corpus"].requests == []
    assert steps["target"].requests == [Request(setting="train.target.workers", cpus=2)]
    judging = Request(setting="train.workers.validation_gpus", cpus=0, gpus=0.5)
    assert steps["de/pretrain"].requests == [training, judging]
    assert steps["de/distill"].requests == [Request(setting="train.distill", cpus=2)], "one actor will do"
    assert steps["de/finetune"].requests == [training]
    evaluating = [Request(setting="train.evaluate.gpus", gpus=0.25)]
    assert steps["de/evaluate/finetune"].requests == steps["de/publish/finetune"].requests == evaluating


def test_a_run_that_is_refused_has_done_nothing(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe, target = REPLACE(tiny_recipe(), workers=WorkerSettings(workers=5)), save_target(tmp_path / "target")
    steps = Plan(recipe, ["de"], run=tmp_path / "run", data="", target=target, registry="registry").steps
    steps["de/pretrain"].stage.begin()
    with pytest.raises(SettingsError, match=r"train\.workers: 5 × \(1 CPU, 0 GPU\)"):
        Pipeline(steps).run(again=["de/pretrain"])
    assert [path.name for path in (tmp_path / "run").glob("*/*")] == ["pretrain"]
