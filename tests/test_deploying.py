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
from common.settings import SettingsError
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
