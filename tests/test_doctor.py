"""What doctor says of configurations and of clusters: all that is wrong, and nothing of what is right."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tiny_target import save_target

from cluster.cli import main
from cluster.config import SHIPPED, load_config
from cluster.doctor.check import Check, Doubt, Finding, examine, require
from cluster.doctor.machines import Machine, machine_checks, verdicts
from cluster.doctor.resources import serving_resources, training_resources
from cluster.doctor.serving import drafter_checks, serving_checks
from cluster.doctor.training import training_checks
from cluster.run import Run, make_run
from common.models import fingerprint, load_tokenizer
from common.models import load_config as load_model_config
from common.registry import Registry
from common.settings import SettingsError

GOOD = Machine(
    name="a",
    authentication="token",
    versions="ray 2.60",
    source="1",
    target="abc",
    registry="de",
    port_taken=False,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of the laptop's configuration: German has a drafter that fits, French one that does not."""
    target = save_target(tmp_path / "target")
    fits = fingerprint(load_tokenizer(target), load_model_config(target))
    registry = Registry(tmp_path / "registry")
    for language, own in (("de", fits), ("fr", msgspec.structs.replace(fits, tokens="other"))):
        made = registry.publish(language, target, target="t", fingerprint=own, metrics={}, provenance={})
        registry.promote(language, made.version)
    config = load_config("laptop", ("serve.chat_template='{{ messages[0].content }}'",))
    return make_run("laptop", config, folder=str(tmp_path), target=str(target), registry=registry.root)


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings}


def with_serve(run: Run, *overrides: str) -> Run:
    return msgspec.structs.replace(run, config=load_config("laptop", overrides))


def test_what_is_right_is_told_as_right(run: Run) -> None:
    found = list(examine([*serving_checks(run), *drafter_checks(run)]))
    assert states(found) == {
        "target": "right",
        "serve.chat_template": "right",
        "serve.protection.keys_file": "right",
        "serve.verifier.kv_tokens": "right",
        "drafter for de": "right",
        "drafter for fr": "doubtful",
    }
    assert "token ids mean other bytes" in found[-1].found


@pytest.mark.parametrize(
    ("override", "what", "state", "told"),
    [
        ("serve.chat_template='{% for'", "serve.chat_template", "doubtful", "refuses"),
        ("serve.protection={keys_file: none.yaml}", "serve.protection.keys_file", "wrong", "none.yaml: no such"),
        ("serve.host=0.0.0.0", "serve.protection.keys_file", "doubtful", "whoever reaches 0.0.0.0:8000 can ask"),
        ("serve.tls={certificate: c, key: k, authority: a}", "serve.tls", "wrong", "no such file: c"),
        (
            "serve.capture={folder: /dev/null/kept}",
            "serve.capture",
            "wrong",
            "/dev/null is no folder",
        ),
        ("serve.capture={folder: /kept}", "serve.capture", "right", "1% of the prompts are kept in /kept"),
        ("serve.verifier.kv_tokens=32", "serve.verifier.kv_tokens", "doubtful", "texts end after 32 tokens"),
        ("serve.drafter.kv_tokens=32", "serve.verifier.kv_tokens", "doubtful", "more than 32 tokens are not drafted"),
        ("serve.verifier.tensor_parallel=2", "serve.verifier.tensor_parallel", "wrong", "num_key_value_heads is 1"),
        ("languages=[de, es]", "drafter for es", "doubtful", "none is published as `es`"),
    ],
)
def test_what_is_wrong_is_told(run: Run, override: str, what: str, state: str, told: str) -> None:
    changed = with_serve(run, override)
    [found] = [f for f in examine([*serving_checks(changed), *drafter_checks(changed)]) if f.what == what]
    assert found.state == state and told in found.found


def test_what_training_lacks_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    changed = msgspec.structs.replace(run, given_target=tmp_path / "nowhere", folder=tmp_path / "file" / "run")
    found = states(list(examine(training_checks(changed, str(tmp_path)))))
    assert found == {
        "--target": "wrong",
        "train.corpus.train": "wrong",
        "train.corpus.valid": "wrong",
        "train.corpus.test": "wrong",
        "--run": "wrong",
        "--registry": "right",
    }


def test_one_thing_that_is_wrong_does_not_hide_another(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(message: str) -> Callable[[], str]:
        def look() -> str:
            raise SettingsError(message)

        return look

    def doubtful() -> str:
        raise Doubt("perhaps")

    checks = [Check("serve.port", wrong("no")), Check("else", doubtful), Check("--run", wrong("never"), "do this")]
    with pytest.raises(SettingsError) as error:
        require(checks, "multi-node")
    first, second = str(error.value).splitlines()
    assert first == "serve.port: no" and second == "--run: never (do this)"
    assert "else: perhaps" in caplog.text
    with pytest.raises(SettingsError, match=r"multi-node\.yaml:\d+: serve\.tls: no"):
        require([Check("serve.tls", wrong("no"))], "multi-node")


@pytest.mark.parametrize(
    ("changes", "what", "told"),
    [
        ({"authentication": ""}, "authentication", "off on b"),
        ({"versions": "ray 2.61"}, "versions", "2.61"),
        ({"source": "2"}, "source", "b: 2"),
        ({"target": "unreadable: /t: no such folder"}, "target there", "b: unreadable: /t"),
        ({"registry": "de, fr"}, "registry there", "a: de; b: de, fr"),
    ],
)
def test_machines_that_differ_are_told(changes: dict[str, object], what: str, told: str) -> None:
    other = msgspec.structs.replace(GOOD, name="b", **changes)
    found = {finding.what: finding for finding in examine(verdicts([GOOD, other]))}
    assert [name for name, finding in found.items() if finding.state == "wrong"] == [what]
    assert told in found[what].found


def test_machines_that_are_alike_and_wrong_are_told() -> None:
    other = msgspec.structs.replace(GOOD, target="unreadable: x")
    assert states(list(examine(verdicts([other, other]))))["target there"] == "wrong"


@pytest.mark.parametrize(
    ("machines", "error", "told"),
    [
        ([{"CPU": 16.0, "GPU": 1.0}], None, "5 × serve.drafter"),
        ([{"CPU": 16.0}], SettingsError, "serve.verifier: no machine has 2 CPU, 0.6 GPU"),
        ([{"CPU": 8.0, "GPU": 1.0}], SettingsError, "ask for 9 CPU; the cluster has 8"),
    ],
)
def test_resources_are_counted(machines: list[dict[str, float]], error: type[Exception] | None, told: str) -> None:
    config = load_config("one-gpu-node")
    if error is None:
        assert told in serving_resources(config.serve, 5, machines)
    else:
        with pytest.raises(error) as raised:
            serving_resources(config.serve, 5, machines)
        assert told in str(raised.value)


def test_replicas_that_would_need_another_machine_are_doubtful() -> None:
    serve = load_config("multi-node").serve
    verifiers = [{"CPU": 16.0, "GPU": 2.0, "verifier": 2.0}] * 3
    drafters = [{"CPU": 8.0, "GPU": 1.0, "drafter": 1.0}]
    with pytest.raises(Doubt, match=r"8 × serve\.verifier of 2 ranks, .* ask for"):
        serving_resources(serve, 5, verifiers + drafters)
    with pytest.raises(SettingsError, match=r"2 × serve\.verifier of 2 ranks, .* ask for 5 GPU; the cluster has 3"):
        serving_resources(serve, 5, [{"CPU": 32.0, "GPU": 2.0, "verifier": 2.0}, *drafters])
    with pytest.raises(SettingsError, match=r"0\.2 drafter"):
        serving_resources(serve, 5, [{"CPU": 64.0, "GPU": 8.0, "verifier": 8.0}])


def test_training_that_does_not_fit_is_told() -> None:
    recipe = load_config("multi-node").train
    machine = {"CPU": 16.0, "GPU": 2.0}
    assert "train.workers" in training_resources(recipe, [machine, machine])
    with pytest.raises(SettingsError, match=r"train.workers: 4 × \(2 CPU, 1 GPU\) do not fit"):
        training_resources(recipe, [machine])


def test_a_cluster_is_asked(ray_cluster: None, run: Run) -> None:
    found = {finding.what: finding for finding in examine(machine_checks(run, "train"))}
    wrong = {what for what, finding in found.items() if finding.state == "wrong"}
    assert wrong == (set() if os.environ["RAY_AUTH_MODE"] == "token" else {"authentication"})
    assert found["registry there"].found == "de, fr"
    assert found["versions"].found.startswith("python 3.")


def test_the_command_tells_everything_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["polydraft", "doctor", "--config", "laptop", "--target", "none"])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr().out
    assert end.value.code == 1
    assert "none: no such folder" in shown and "drafter for fr" in shown


def test_the_command_tells_every_mistake_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (SHIPPED / "laptop.yaml").read_text(encoding="utf8")
    Path("own.yaml").write_text(text.replace("max_requests", "max_request").replace("threads: 2", "threads: two"))
    monkeypatch.setattr("sys.argv", ["polydraft", "doctor", "--config", "own.yaml"])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr().out
    assert end.value.code == 1
    assert "unknown setting `serve.max_request`" in shown and "serve.verifier.threads" in shown
    assert shown.count("own.yaml:") == 2
