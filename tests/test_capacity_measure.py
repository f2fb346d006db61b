"""The costs of real models: steps of their engines at all sizes, and acceptance as it was evaluated."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml
from tiny_target import save_target

from cluster.capacity import measure as measuring
from cluster.capacity.costs import Coordination, Costs
from cluster.capacity.measure import acceptance, drafter_steps, measure, verifier_steps
from cluster.capacity.traffic import LanguageTraffic, Traffic
from cluster.config import load_config
from cluster.run import make_run
from common.models import fingerprint, load_tokenizer
from common.models import load_config as load_model_config
from common.registry import Manifest, Registry
from common.settings import SettingsError, load
from serve.settings import ReplicaSettings

METRICS = {"accepted_at_1/T=0": 0.8, "accepted_at_2/T=0": 0.6, "accepted_at_1/T=1": 0.5, "accepted_at_2/T=1": 0.0}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target"))


def published(target: Path, folder: Path) -> Manifest:
    registry, fits = Registry(folder), fingerprint(load_tokenizer(target), load_model_config(target))
    made = registry.publish("de", target, target="t", fingerprint=fits, metrics=METRICS, provenance={})
    registry.promote("de", made.version)
    return made


def test_steps_are_timed_at_all_sizes(target: Path) -> None:
    verifier, drafter = (steps(target, ReplicaSettings(), 1.0) for steps in (verifier_steps, drafter_steps))
    assert [tokens for tokens, _ in verifier.steps_ms] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert [tokens for tokens, _ in drafter.steps_ms] == [1, 2, 4, 8, 16, 32, 64]


def test_acceptance_of_each_token_given_those_before_it(target: Path, tmp_path: Path) -> None:
    manifest = published(target, tmp_path)
    assert acceptance(manifest, 0.0) == pytest.approx((0.8, 0.75))
    assert acceptance(manifest, 1.0) == (0.5, 0.0)
    with pytest.raises(SettingsError, match=r"temperature: de/v0001 was evaluated at 0, 1, not at 0.3"):
        acceptance(manifest, 0.3)
    with pytest.raises(SettingsError, match=r"was not evaluated"):
        acceptance(msgspec.structs.replace(manifest, metrics={}), 0.0)


def test_what_is_measured_can_be_written_and_read(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measuring, "measure_coordination", Coordination)
    monkeypatch.setattr(measuring, "TEXTS", (1, 2))
    published(target, tmp_path / "registry")
    asked = LanguageTraffic(requests_per_s=1.0, prompt_tokens=8.0, output_tokens=8.0)
    run = make_run("laptop", load_config("laptop"), folder=str(tmp_path), target=str(target))
    costs = measure(run, Traffic(languages={"de": asked, "fr": asked}))
    assert set(costs.drafters) == {"de"}
    assert "fr is planned without a drafter" in caplog.text
    assert costs.provenance["target"] == str(target) and costs.temperature == 0.0
    path = tmp_path / "costs.yaml"
    path.write_text(yaml.safe_dump(msgspec.to_builtins(costs)), encoding="utf8")
    assert load(path, Costs) == costs


def test_a_drafter_that_the_server_would_refuse_is_not_planned_with(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measuring, "measure_coordination", Coordination)
    monkeypatch.setattr(measuring, "TEXTS", (1,))
    registry, fits = Registry(tmp_path / "registry"), fingerprint(load_tokenizer(target), load_model_config(target))
    foreign = msgspec.structs.replace(fits, tokens="others")
    made = registry.publish("de", target, target="t", fingerprint=foreign, metrics=METRICS, provenance={})
    registry.promote("de", made.version)
    asked = LanguageTraffic(requests_per_s=1.0, prompt_tokens=8.0, output_tokens=8.0)
    run = make_run("laptop", load_config("laptop"), folder=str(tmp_path), target=str(target))
    assert measure(run, Traffic(languages={"de": asked})).drafters == {}
    assert "de is planned without a drafter" in caplog.text


def test_a_divided_target_is_not_measured(target: Path, tmp_path: Path) -> None:
    config = load_config("laptop", ["serve.verifier.tensor_parallel=2"])
    run = make_run("laptop", config, folder=str(tmp_path), target=str(target))
    asked = LanguageTraffic(requests_per_s=1.0, prompt_tokens=8.0, output_tokens=8.0)
    with pytest.raises(SettingsError, match=r"serve\.verifier\.tensor_parallel"):
        measure(run, Traffic(languages={"de": asked}))
