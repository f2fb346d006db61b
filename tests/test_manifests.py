"""The manifests are what Kubernetes, KubeRay and `ray up` take, and what they start has room for what is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kuberay
import pytest
import yaml
from kuberay import ClusterSpec, WorkerGroup
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster import ray_environment
from cluster.config import Config, load_config
from cluster.doctor.check import Doubt
from cluster.doctor.resources import serving_resources, training_resources
from cluster.serve_config import Places, serve_config
from common.settings import SettingsError, convert

MANIFESTS = Path(__file__).parent.parent / "cluster" / "manifests"
PATHS = [path for path in sorted(MANIFESTS.glob("*.yaml")) if not path.name.startswith("ray-up")]
SERVICES = ("one-gpu-node", "multi-node", "scale-to-zero")


def documents(path: Path) -> list[Any]:
    """Checked against the fields that there are. Raises SettingsError naming every one that is wrong."""
    read = yaml.safe_load_all(path.read_text(encoding="utf8"))
    return [convert(raw, kuberay.KINDS[raw["kind"]], where=path.name) for raw in read]


def all_documents() -> Iterator[Any]:
    for path in PATHS:
        yield from documents(path)


def clusters() -> Iterator[ClusterSpec]:
    for made in all_documents():
        match made:
            case kuberay.RayService():
                yield made.spec.ray_cluster_config
            case kuberay.RayJob():
                yield made.spec.ray_cluster_spec
            case kuberay.RayCluster():
                yield made.spec


def service(scenario: str) -> kuberay.RayService:
    [made] = documents(MANIFESTS / f"ray-service.{scenario}.yaml")
    return made


def places(scenario: str) -> Places:
    target, run = ("vicuna-13b", "vicuna-13b") if scenario == "multi-node" else ("vicuna-7b", "vicuna")
    return Places(target=f"/models/{target}", registry=f"/models/runs/{run}/registry", cache="/tmp/polydraft")


def machine(group: WorkerGroup) -> dict[str, float]:
    """Ray's resources of each machine of a group."""
    [container] = group.template.spec.containers
    limits = container.resources.limits
    own = {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0))}
    return own | {name: float(amount) for name, amount in group.resources.items()}


def machines(cluster: ClusterSpec, *, largest: bool) -> list[dict[str, float]]:
    counts = [(g.max_replicas if largest else g.min_replicas, machine(g)) for g in cluster.worker_group_specs]
    return [each for count, each in counts for _ in range(count)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_field_is_one_that_there_is(path: Path) -> None:
    assert documents(path)


@pytest.mark.parametrize("scenario", SERVICES)
def test_what_is_deployed_is_what_serve_config_writes(scenario: str) -> None:
    config = load_config(scenario)
    written = yaml.safe_load(service(scenario).spec.serve_config_v2)
    assert written == yaml.safe_load(yaml.safe_dump(serve_config(config, places(scenario), config.languages)))


def has_room(config: Config, there: list[dict[str, float]]) -> str:
    """For the "most" replicas, or the "fewest"; raises SettingsError if not even for them."""
    try:
        serving_resources(config.serve, len(config.languages), there)
    except Doubt:
        return "fewest"
    return "most"


@pytest.mark.parametrize(
    ("scenario", "smallest"), [("one-gpu-node", "most"), ("multi-node", "fewest"), ("scale-to-zero", "fewest")]
)
def test_the_smallest_cluster_has_room_for_the_fewest_replicas_and_the_largest_for_the_most(
    scenario: str, smallest: str
) -> None:
    config, cluster = load_config(scenario), service(scenario).spec.ray_cluster_config
    assert has_room(config, machines(cluster, largest=False)) == smallest
    assert has_room(config, machines(cluster, largest=True)) == "most"


def test_no_drafter_takes_a_verifiers_machine() -> None:
    config, cluster = load_config("multi-node").serve, service("multi-node").spec.ray_cluster_config
    groups = {group.group_name: machine(group) for group in cluster.worker_group_specs}
    assert config.verifier.resources.keys() <= groups["verifiers"].keys()
    assert config.drafter.resources.keys() <= groups["drafters"].keys()
    assert not config.verifier.resources.keys() & groups["drafters"].keys()
    assert not config.drafter.resources.keys() & groups["verifiers"].keys()


def test_what_a_job_trains_fits_its_largest_cluster() -> None:
    [job] = documents(MANIFESTS / "ray-job.train.yaml")
    words = job.spec.entrypoint.split()
    assert words[:3] == ["python", "-m", "cluster.jobs.train"]
    recipe = load_config(words[words.index("--config") + 1]).train
    assert training_resources(recipe, machines(job.spec.ray_cluster_spec, largest=True))


def test_every_cluster_is_protected_and_leaves_texts_time_to_end() -> None:
    found = list(clusters())
    assert len(found) == 5
    for cluster in found:
        assert cluster.auth_options.secret_name == "ray-auth-token"
        assert cluster.head_group_spec.ray_start_params["num-cpus"] == "0"
        for group in cluster.worker_group_specs:
            [container] = group.template.spec.containers
            drain = {v.name: v.value for v in container.env}["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
            assert group.template.spec.termination_grace_period_seconds > int(drain or 0)
            assert container.resources.limits.keys() == container.resources.requests.keys()


def test_the_version_of_ray_is_the_one_that_is_tested() -> None:
    pinned = (MANIFESTS.parent.parent / "constraints.txt").read_text(encoding="utf8").split()
    assert all(f"ray=={cluster.ray_version}" in pinned for cluster in clusters())


def test_only_named_pods_are_reached_and_only_declared_ports_are_read() -> None:
    policies = {made.metadata.name: made.spec for made in all_documents() if isinstance(made, kuberay.NetworkPolicy)}
    everyone = policies["deny-all"]
    assert everyone.pod_selector.match_labels == {} and everyone.policy_types == ["Ingress", "Egress"]
    assert not everyone.ingress and not everyone.egress
    for spec in policies.values():
        assert all(peer != kuberay.Peer() for rule in spec.ingress for peer in rule.from_)
        assert all(rule.from_ for rule in spec.ingress)
    heads = {port.name for cluster in clusters() for port in cluster.head_group_spec.template.spec.containers[0].ports}
    [monitor] = documents(MANIFESTS / "monitoring.yaml")
    assert {endpoint.port for endpoint in monitor.spec.pod_metrics_endpoints} <= heads


def test_no_secret_is_in_a_file() -> None:
    for path in MANIFESTS.glob("*.yaml"):
        assert "kind: Secret" not in path.read_text(encoding="utf8")


@pytest.mark.parametrize("name", ["aws", "own-machines"])
def test_ray_up_takes_its_file(name: str) -> None:
    raw = yaml.safe_load((MANIFESTS / f"ray-up.{name}.yaml").read_text(encoding="utf8"))
    validate_config(prepare_config(raw))
    commands = [*raw["head_start_ray_commands"], *raw["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in commands if "ray start" in command)


def test_what_ray_up_starts_has_room_for_the_scenario() -> None:
    raw = yaml.safe_load((MANIFESTS / "ray-up.aws.yaml").read_text(encoding="utf8"))
    kinds = [kind for name, kind in raw["available_node_types"].items() if name != raw["head_node_type"]]
    config = load_config("multi-node")
    for count, room in (("min_workers", "fewest"), ("max_workers", "most")):
        there = [{n: float(a) for n, a in kind["resources"].items()} for kind in kinds for _ in range(kind[count])]
        assert has_room(config, there) == room


def test_a_field_that_there_is_not_is_told() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting `spec\.podSelectr`"):
        convert({"spec": {"podSelectr": {}}}, kuberay.NetworkPolicy, where="x")


@pytest.mark.parametrize("path", ["Dockerfile", "ray-up.own-machines.yaml"])
def test_serve_is_told_how_to_move_answers(path: str) -> None:
    text = (MANIFESTS / path).read_text(encoding="utf8")
    starts = max(1, text.count(" ray start"))
    assert all(text.count(f"{name}={value}") == starts for name, value in ray_environment.SERVE.items())
