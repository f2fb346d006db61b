"""Whether a cluster has what a run asks for. Ray itself would wait for it, in silence."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence

import msgspec
import ray

from common.settings import SettingsError

logger = logging.getLogger(__name__)

Machine = dict[str, float]
"""Ray's resources by name."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Some equal parts, all at the same time, each on one machine."""

    setting: str
    """By which it can be changed."""
    parts: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.parts} × ({self.cpus:g} CPU, {self.gpus:g} GPU)"

    def fits(self, machines: Sequence[Machine]) -> bool:
        """Whether these machines could do it if they had nothing else to do."""
        part = {name: amount for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}
        room = (min(machine.get(name, 0.0) // amount for name, amount in part.items()) for machine in machines)
        return sum(room) >= self.parts


def check(requests: Iterable[Request], machines: Sequence[Machine], *, may_grow: bool) -> None:
    """Raises SettingsError, naming the setting, for what would be waited for in vain; only warns if more may come."""
    for request in dict.fromkeys(requests):
        if request.fits(machines):
            continue
        cpus, gpus = (sum(machine.get(name, 0.0) for machine in machines) for name in ("CPU", "GPU"))
        problem = f"{request.setting}: {request} do not fit; the cluster has {cpus:g} CPU, {gpus:g} GPU"
        if not may_grow:
            raise SettingsError(f"{problem} on {len(machines)} machine(s)")
        logger.warning("%s at the moment, and the run waits for more", problem)


def check_cluster(requests: Iterable[Request]) -> None:
    """Of the cluster that this process is connected to: one that it has only joined may have an autoscaler."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check(requests, machines, may_grow="RAY_ADDRESS" in os.environ)
