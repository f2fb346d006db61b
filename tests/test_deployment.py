"""Which published drafters are served, and for which language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_target import save_target

from cluster.config import Config, load_config
from cluster.deployment import deploy_drafter, usable_drafters
from common.models import fingerprint, load_tokenizer
from common.models import load_config as load_model_config
from common.registry import Registry
from common.settings import SettingsError


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return save_target(tmp_path / "target")


@pytest.fixture
def registry(tmp_path: Path, target: Path) -> str:
    """What training publishes for one language, and the drafter for all."""
    root = str(tmp_path / "registry")
    for name in ("de", "de-ngram", "generalist"):
        fits = fingerprint(load_tokenizer(target), load_model_config(target))
        made = Registry(root).publish(name, target, target="t", fingerprint=fits, metrics={}, provenance={})
        Registry(root).promote(name, made.version)
    return root


def configured(*overrides: str) -> Config:
    return load_config("quickstart", ("languages=[de, fr]", *overrides))


def test_every_language_gets_its_own_drafter_and_the_generalist_is_there_for_the_others(
    target: Path, registry: str
) -> None:
    found = usable_drafters(configured(), target, registry)
    assert {name: manifest.language for name, manifest in found.items()} == {"de": "de", "generalist": "generalist"}


def test_a_language_can_be_drafted_by_another_registered_name(target: Path, registry: str) -> None:
    config = configured("serve.drafters={de: de-ngram, fr: generalist}")
    found = usable_drafters(config, target, registry)
    names = {name: manifest.language for name, manifest in found.items()}
    assert names == {"de": "de-ngram", "fr": "generalist", "generalist": "generalist"}


def test_a_language_is_deployed_with_the_drafter_that_was_chosen_for_it(
    target: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed: list[Any] = []
    monkeypatch.setattr("cluster.deployment.ray_serve.run_many", deployed.extend)
    config = configured("serve.drafters={de: de-ngram}")
    for language in ("de", "fr"):
        deploy_drafter(config, target, registry, tmp_path, language)
    bound = [(app.name, app.target._bound_deployment.init_args[2]) for app in deployed]
    assert bound == [("drafter-de", "de-ngram"), ("drafter-fr", "fr")]


def test_a_drafter_for_an_unknown_language_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown language `xx`"):
        configured("serve.drafters={xx: de}")
