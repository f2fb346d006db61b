"""Whether the machines that there are have what a configuration asks Ray for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cluster.config import Config
from cluster.doctor.check import Doubt
from common.settings import SettingsError
from serve.settings import ReplicaSettings, ServeSettings
from train.capacity import Machine, Request, check
from train.recipe import Recipe


class Demand(msgspec.Struct, frozen=True):
    """Replicas of one kind."""

    replica: Request
    count: int


def serving_resources(config: Config, machines: Sequence[Machine]) -> str:
    """What is told of resources that are enough.

    Raises SettingsError if the fewest replicas do not fit, and Doubt if the most do not: machines may yet be added.
    """
    least, most = (_demands(config.serve, len(config.languages), largest=largest) for largest in (False, True))
    check((demand.replica for demand in least), machines, may_grow=False)
    for demands, problem in ((least, SettingsError), (most, Doubt)):
        lacking = _lacking(demands, machines)
        if lacking is not None:
            raise problem(lacking)
    return f"enough for {_named(most)}"


def training_resources(recipe: Recipe, machines: Sequence[Machine]) -> str:
    """What is told of resources that are enough. Raises SettingsError."""
    workers, distill, gpus = recipe.workers, recipe.distill, recipe.evaluate.gpus
    requests = [
        Request(
            setting="train.workers",
            parts=workers.workers,
            cpus=workers.cpus_per_worker,
            gpus=int(workers.use_gpu),
        ),
        Request(setting="train.distill", cpus=distill.cpus_per_actor, gpus=distill.gpus_per_actor),
        Request(setting="train.evaluate", gpus=gpus),
    ]
    check(requests, machines, may_grow=False)
    return f"enough for {', '.join(f'{request.setting} {request}' for request in requests)}"


def _demands(serve: ServeSettings, languages: int, *, largest: bool) -> list[Demand]:
    verifier, drafter = serve.verifier, serve.drafter
    return [
        Demand(Request(setting="serve.router_cpus", cpus=serve.router_cpus), serve.router_replicas),
        Demand(_replica("serve.verifier", verifier), _count(verifier, largest=largest)),
        Demand(_replica("serve.drafter", drafter), languages * _count(drafter, largest=largest)),
    ]


def _replica(setting: str, replica: ReplicaSettings) -> Request:
    return Request(setting=setting, cpus=replica.num_cpus, gpus=replica.num_gpus)


def _count(replica: ReplicaSettings, *, largest: bool) -> int:
    scaled = replica.autoscaling
    if scaled is None:
        return replica.num_replicas
    return scaled.max_replicas if largest else scaled.min_replicas


def _lacking(demands: Sequence[Demand], machines: Sequence[Machine]) -> str | None:
    wanted = {
        "CPU": sum(demand.count * demand.replica.cpus for demand in demands),
        "GPU": sum(demand.count * demand.replica.gpus for demand in demands),
    }
    for name, amount in wanted.items():
        there = sum(machine.get(name, 0.0) for machine in machines)
        if amount > there + 1e-9:  # shares such as 0.1 do not add up exactly
            return f"{_named(demands)} ask for {amount:g} {name}; the cluster has {there:g}"
    return None


def _named(demands: Sequence[Demand]) -> str:
    return ", ".join(f"{demand.count} × {demand.replica.setting}" for demand in demands)
