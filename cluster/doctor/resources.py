"""Whether the machines that there are have what a configuration asks Ray for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cluster.doctor.check import Doubt
from common.settings import SettingsError
from serve.settings import ReplicaSettings, ServeSettings
from train.capacity import Machine, Request, check
from train.recipe import Recipe


class Demand(msgspec.Struct, frozen=True):
    """Replicas of one kind."""

    setting: str
    needs: dict[str, float]
    """Of each process of one, by the names of Ray's resources."""
    count: int
    ranks: int = 1
    """Processes of each; they may be on different machines."""

    def __str__(self) -> str:
        return f"{self.count} × {self.setting}" + (f" of {self.ranks} ranks" if self.ranks > 1 else "")


def serving_resources(serve: ServeSettings, languages: int, machines: Sequence[Machine]) -> str:
    """What is told of resources that are enough, for so many languages with a drafter each.

    Raises SettingsError if the fewest replicas do not fit, and Doubt if the most do not: machines may yet be added.
    """
    least, most = (_demands(serve, languages, largest=largest) for largest in (False, True))
    for demand in least:
        if demand.count and not any(_fits(demand, machine) for machine in machines):
            raise SettingsError(f"{demand.setting}: no machine has {_amounts(demand.needs)}")
    for demands, problem in ((least, SettingsError), (most, Doubt)):
        lacking = _lacking(demands, machines)
        if lacking is not None:
            raise problem(lacking)
    return f"enough for {_named(most)}"


def training_resources(recipe: Recipe, machines: Sequence[Machine]) -> str:
    """What is told of resources that are enough. Raises SettingsError."""
    workers, distill = recipe.workers, recipe.distill
    training = Request(
        setting="train.workers", parts=workers.workers, cpus=workers.cpus_per_worker, gpus=int(workers.use_gpu)
    )
    distilling = Request(setting="train.distill", cpus=distill.cpus_per_actor, gpus=distill.gpus_per_actor)
    requests = [training, distilling, Request(setting="train.evaluate", gpus=recipe.evaluate.gpus)]
    check(requests, machines, may_grow=False)
    return f"enough for {', '.join(f'{request.setting} {request}' for request in requests)}"


def _demands(serve: ServeSettings, languages: int, *, largest: bool) -> list[Demand]:
    verifiers, drafters = (_count(replica, largest=largest) for replica in (serve.verifier, serve.drafter))
    return [
        Demand("serve.router_cpus", {"CPU": serve.router_cpus}, serve.router_replicas),
        Demand("serve.verifier", serve.verifier.needs, verifiers, serve.verifier.tensor_parallel),
        Demand("serve.drafter", serve.drafter.needs, languages * drafters),
    ]


def _count(replica: ReplicaSettings, *, largest: bool) -> int:
    scaled = replica.autoscaling
    if scaled is None:
        return replica.num_replicas
    return scaled.max_replicas if largest else scaled.min_replicas


def _fits(demand: Demand, machine: Machine) -> bool:
    return all(machine.get(name, 0.0) >= amount for name, amount in demand.needs.items())


def _lacking(demands: Sequence[Demand], machines: Sequence[Machine]) -> str | None:
    for name in dict.fromkeys(name for demand in demands for name in demand.needs):
        wanted = sum(demand.count * demand.ranks * demand.needs.get(name, 0.0) for demand in demands)
        there = sum(machine.get(name, 0.0) for machine in machines)
        if wanted > there + 1e-9:  # shares such as 0.1 do not add up exactly
            return f"{_named(demands)} ask for {_amounts({name: wanted})}; the cluster has {there:g}"
    return None


def _named(demands: Sequence[Demand]) -> str:
    return ", ".join(map(str, demands))


def _amounts(needs: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
