"""A drafter is judged in the dtype and on the device that were asked for, with each model in memory once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch
from tiny_target import save_target

from common import models
from common.registry import Registry
from train.evaluation import drafter
from train.evaluation.drafter import Models, evaluate
from train.publishing import Place, judge, publish
from train.recipe import EvaluateSettings, PublishSettings

SETTINGS = EvaluateSettings(prompts=3, draft_length=2, max_tokens=6, speed_prompts=2)
PROMPTS = [(5, 6, 7), (8, 9), (10,)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("evaluated") / "target")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is loaded, as it is: its folder's name and its dtype."""
    names: list[str] = []

    def load(folder: Path, *, dtype: str) -> torch.nn.Module:
        names.append(f"{folder.name} {dtype}")
        return models.load_model(folder, dtype=dtype)

    monkeypatch.setattr(drafter, "load_model", load)
    monkeypatch.setattr(drafter, "load_drafter", load)
    return names


def test_each_model_is_loaded_once_in_the_dtype_asked_for(target: Path, loaded: list[str]) -> None:
    running = evaluate(target, target, PROMPTS, msgspec.structs.replace(SETTINGS, dtype="bfloat16"))
    assert [next(running) for _ in range(3)] == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(StopIteration) as ended:
        next(running)
    assert loaded == ["target bfloat16"] * 2
    assert [len(at.blocks) for at in ended.value.value.speed] == [2, 2]


def test_without_a_gpu_asked_for_the_cpu_is_used_though_one_is_there(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    there = SimpleNamespace(to=lambda device: moved.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(drafter, "load_model", lambda folder, dtype: there)
    monkeypatch.setattr(drafter, "load_drafter", lambda folder, dtype: None)
    Models(target, target, SETTINGS)
    Models(target, target, msgspec.structs.replace(SETTINGS, gpus=0.5))
    assert moved == ["cpu", "cuda"]


def test_of_the_promoted_drafter_only_the_acceptance_is_measured(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = evaluate(target, target, PROMPTS, SETTINGS)
    with pytest.raises(StopIteration) as ended:
        while True:
            next(running)
    place = Place(registry=str(tmp_path / "registry"), name="de")
    publish(place, target, target, ended.value.value, {})
    assert Registry(place.registry).current("de") is not None
    monkeypatch.setattr(drafter, "measure_speed", lambda *_: pytest.fail("its speed is nobody's business"))
    settings = PublishSettings(require_speedup=None)
    judge(place, ended.value.value, target, PROMPTS, settings, SETTINGS, tmp_path / "promoted")
