"""What Serve is told when a configuration is deployed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from cluster import deployment
from common.registry import Registry
from common.settings import SettingsError, convert
from serve.app import build_main
from serve.settings import ReplicaSettings, ServeSettings


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    shape = tiny.SHAPES["llama"].to_dict() | {"vocab_size": 400, "eos_token_id": 1}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    tiny_tokenizer.byte_level().save_pretrained(folder)
    return folder


def config(**serve: Any) -> Any:
    return SimpleNamespace(languages=("de",), serve=ServeSettings(**serve))


def test_the_proxy_waits_longer_than_the_router(monkeypatch: pytest.MonkeyPatch, target: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    monkeypatch.setattr(deployment.ray_serve, "start", lambda proxy_location, http_options: told.append(http_options))
    monkeypatch.setattr(deployment.ray_serve, "run_many", told.append)
    deployment.deploy(config(request_timeout_s=60.0), target, str(tmp_path), tmp_path, ["de"])
    options, targets = told
    assert options.request_timeout_s > 60.0
    assert [each.name for each in targets] == ["polydraft", "drafter-de"]


def test_no_queue_grows_without_bound() -> None:
    router = build_main("target", ["de"], ServeSettings(max_requests=7))._bound_deployment
    assert 7 < router.max_ongoing_requests < 100 and 0 < router.max_queued_requests < 100
    assert router.backpressure_config.status_code == 429


@pytest.mark.parametrize(
    ("verifier", "drafter", "named"),
    [(256, 256, []), (255, 512, ["240", "verifier.kv_tokens"]), (256, 100, ["96", "drafter.kv_tokens"])],
)
def test_memory_that_bounds_texts_is_told_at_the_start(
    target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, verifier: int, drafter: int, named: list[str]
) -> None:
    settings = config(verifier=ReplicaSettings(kv_tokens=verifier), drafter=ReplicaSettings(kv_tokens=drafter))
    deployment.usable_drafters(settings, target, Registry(tmp_path).root)
    told = [record.getMessage() for record in caplog.records if "kv_tokens" in record.getMessage()]
    assert len(told) == bool(named)
    assert all(word in told[0] for word in named)


def test_memory_of_less_than_a_block_is_refused() -> None:
    with pytest.raises((SettingsError, ValueError), match="kv_tokens must be at least 16"):
        ReplicaSettings(kv_tokens=15)


def placement(settings: ServeSettings) -> tuple[list[dict[str, float]] | None, str | None]:
    """Bundles and strategy of the verifier."""
    verifier = build_main("target", ["de"], settings)._bound_deployment.init_args[2]
    told = verifier._bound_deployment._replica_config
    return told.placement_group_bundles, told.placement_group_strategy


def test_a_divided_verifier_has_a_bundle_for_each_rank_and_another_none() -> None:
    divided = ReplicaSettings(tensor_parallel=3, num_cpus=2, num_gpus=1, resources={"verifier": 1})
    bundle = {"CPU": 2, "GPU": 1, "verifier": 1}
    assert placement(ServeSettings(verifier=divided)) == ([bundle] * 3, "PACK")
    on_cpus = ReplicaSettings(tensor_parallel=2)
    assert placement(ServeSettings(verifier=on_cpus)) == ([{"CPU": 1}] * 2, "PACK")
    assert placement(ServeSettings()) == (None, None)


@pytest.mark.parametrize(
    ("section", "changes", "told"),
    [
        ("verifier", {"tensor_parallel": 0}, "verifier`: tensor_parallel must be at least 1, not 0"),
        ("verifier", {"tensor_parallel": 2, "num_gpus": 0.5}, "num_gpus must be 0 or 1 where tensor_parallel is more"),
        ("verifier", {"tensor_parallel": 2, "num_cpus": 0}, "num_cpus must be more than 0 where tensor_parallel"),
        ("verifier", {"tensor_parallel": 2, "compiled": True}, "compiled must be off where tensor_parallel is more"),
        ("drafter", {"tensor_parallel": 2}, r"drafter\.tensor_parallel must be 1"),
    ],
)
def test_what_cannot_be_divided_is_refused(section: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        convert({section: changes}, ServeSettings, where="test")
