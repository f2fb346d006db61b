"""The file for `serve deploy`: what it deploys is what `polydraft serve` deploys, and nothing restarts for nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema
from tiny_target import save_target

from cluster.cli import main as command_line
from cluster.config import Config, load_config
from cluster.serve_config import Places, as_yaml, serve_config
from common.models import fingerprint, load_tokenizer
from common.models import load_config as load_model_config
from common.registry import Registry
from common.settings import SettingsError, convert
from serve.app import build_drafter, build_main, drafter, main
from serve.settings import ServeSettings

SCENARIOS = ("laptop", "one-gpu-node", "multi-node", "scale-to-zero", "quickstart")
Ended = tuple[int, str, str]
"""Exit status, standard output, standard error."""
PLACES = Places(target="/models/target", registry="s3://bucket/registry", cache="/tmp/cache")


def made(config: Config) -> dict[str, Any]:
    """As it comes back from the file, checked as `serve deploy` checks it."""
    text = as_yaml(serve_config(config, PLACES, config.languages))
    raw: dict[str, Any] = yaml.safe_load(text)
    ServeDeploySchema.model_validate(raw)
    return raw


def application(raw: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [each for each in raw["applications"] if each["name"] == name]
    return dict(found)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target"))


def options(app: Application) -> dict[str, Any]:
    """What Serve is told of each deployment of an application."""
    deployment = app._bound_deployment
    own = {name: value for name, value in vars(deployment._deployment_config).items() if name != "user_config"}
    inner = [options(each) for each in deployment.init_args if isinstance(each, Application)]
    return {deployment.name: own | deployment.ray_actor_options, "within": inner}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_deployed_is_the_same_either_way(scenario: str, target: Path) -> None:
    config = load_config(scenario)
    raw, serve = made(config), config.serve
    assert raw["http_options"]["port"] == serve.port
    assert [each["name"] for each in raw["applications"]] == ["polydraft", *(f"drafter-{n}" for n in config.languages)]

    args = application(raw, "polydraft")["args"]
    assert options(main(args)) == options(build_main(PLACES.target, list(config.languages), serve))

    args = application(raw, "drafter-de")["args"] | {"target": str(target)}
    wanted = fingerprint(load_tokenizer(target), load_model_config(target))
    before = build_drafter(wanted, PLACES.registry, "de", PLACES.cache, serve)
    after = drafter(args)
    assert options(after) == options(before)
    assert after._bound_deployment.init_args[:4] == before._bound_deployment.init_args[:4]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_replica_gets_its_settings(scenario: str) -> None:
    """All but those which each of the two does not need, see the next test."""
    serve = load_config(scenario).serve
    router = convert(serve.of_main(), ServeSettings, where="")
    of_drafters = {"drafter": ServeSettings().drafter, "host": "127.0.0.1", "drafters": {}, "promotion_poll_s": 5.0}
    assert router == msgspec.structs.replace(serve, **of_drafters, port=8000)
    own = convert(serve.of_drafter("de"), ServeSettings, where="")
    for name in ("drafter", "promotion_poll_s", "request_timeout_s", "tls", "logs"):
        assert getattr(own, name) == getattr(serve, name)
    assert own.context_length(10**6) == serve.context_length(10**6)
    assert own.registered("de") == serve.registered("de")


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ("serve.drafter.kv_tokens=512", ["drafter-de", "drafter-fr"]),
        ("serve.drafters={de: de-ngram}", ["drafter-de"]),
        ("serve.promotion_poll_s=1", ["drafter-de", "drafter-fr"]),
        ("serve.model_name=other", ["polydraft"]),
        ("serve.verifier.max_sessions=4", ["polydraft"]),
        ("serve.port=8001", []),
        ("languages=[de, fr, es]", ["drafter-es"]),
    ],
)
def test_a_change_touches_only_what_depends_on_it(change: str, restarted: list[str]) -> None:
    before, after = (made(load_config("laptop", changes)) for changes in ((), (change,)))
    args = {each["name"]: each["args"] for each in before["applications"]}
    assert [each["name"] for each in after["applications"] if args.get(each["name"]) != each["args"]] == restarted


def test_languages_are_told_to_the_router_without_a_restart() -> None:
    [router] = application(made(load_config("laptop")), "polydraft")["deployments"]
    assert router == {"name": "Router", "user_config": {"languages": ["de", "fr"]}}


@pytest.mark.parametrize(
    ("args", "named"),
    [({"target": "t", "servo": {}}, "args: unknown setting `servo`"), ({}, "args: missing setting `target`")],
)
def test_wrong_arguments_are_named(args: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        main(args)


@pytest.fixture
def polydraft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["polydraft", *arguments])
        try:
            command_line()
        except SystemExit as end:
            return (int(end.code or 0), *capsys.readouterr())
        return (0, *capsys.readouterr())

    return run


def test_the_command_writes_the_file(
    polydraft: Callable[..., Ended], target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(tmp_path / "registry")
    fits = fingerprint(load_tokenizer(target), load_model_config(target))
    version = registry.publish("de", target, target="t", fingerprint=fits, metrics={}, provenance={}).version
    registry.promote("de", version)
    arguments = ("--config", "laptop", "--target", str(target), "--registry", registry.root, "--output", "serve.yaml")
    status, _, told = polydraft("serve-config", *arguments)
    assert status == 0, told
    written = yaml.safe_load((tmp_path / "serve.yaml").read_text(encoding="utf8"))
    assert [each["name"] for each in written["applications"]] == ["polydraft", "drafter-de"]
    assert application(written, "drafter-de")["args"]["target"] == str(target)
    assert "fr is served without a drafter" in caplog.text and "no chat template" in caplog.text


def test_the_command_tells_all_that_is_wrong_and_writes_nothing(
    polydraft: Callable[..., Ended], target: Path, tmp_path: Path
) -> None:
    wrong = (
        "--set",
        "serve.protection.keys_file=nokeys.yaml",
        "--set",
        "serve.tls={certificate: c, key: k, authority: a}",
    )
    arguments = ("--config", "laptop", "--target", str(target), *wrong, "--output", "serve.yaml")
    status, _, told = polydraft("serve-config", *arguments)
    assert status == 1
    assert "nokeys.yaml: no such" in told and "tls.certificate: no such file: c" in told
    assert not (tmp_path / "serve.yaml").exists()
