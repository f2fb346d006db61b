"""Where a run keeps its things, and the checks that come before any long work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import ray

from cluster.config import Config
from common.models import ModelError, load_config, load_tokenizer
from common.settings import SettingsError

if TYPE_CHECKING:
    from train.plan import Plan
    from train.recipe import Recipe
    from train.traffic import Start
    from train.traffic_plan import TrafficPlan


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The folder of one configuration's results, ``runs/<configuration>`` unless told otherwise."""

    folder: Path
    config: Config
    given_target: Path | None
    registry: str

    @property
    def target(self) -> Path:
        """The target model's folder."""
        return self.given_target or self.folder / "target" / "model"

    def check(self) -> None:
        """Raises SettingsError or ModelError for what could not work anyway."""
        if self.given_target is None and self.config.train.target is None:
            raise SettingsError("--target: this configuration makes no target of its own, name one")
        if self.given_target is not None:
            load_tokenizer(self.given_target)
            load_config(self.given_target)

    def with_recipe(self, recipe: Recipe) -> Run:
        """The same run with another recipe."""
        return msgspec.structs.replace(self, config=msgspec.structs.replace(self.config, train=recipe))

    def plan(self, data: str, *, force: bool = False) -> Plan:
        """What training does; `data` fills {data} in the corpus sources, `force` publishes whatever the gate says."""
        from train.plan import Plan  # here: seconds of imports, which serving does not need

        return Plan(self.config.train, self.config.languages, **self._places(data, force))

    def traffic_plan(self, starts: Mapping[str, Start], data: str, *, force: bool = False) -> TrafficPlan:
        """The same, and what makes the drafters of `starts` better."""
        from train.traffic_plan import TrafficPlan

        return TrafficPlan(self.config.train, self.config.languages, starts, **self._places(data, force))

    def _places(self, data: str, force: bool) -> dict[str, Any]:
        target, registry = self.given_target, self.registry
        return {"run": self.folder, "data": data, "target": target, "registry": registry, "force": force}

    def check_trained(self) -> None:
        """Raises ModelError if there is no target yet."""
        self.check()
        if not self.target.exists():
            raise ModelError(f"{self.target}: no such model; train it first (polydraft train)")


def make_run(
    name: str, config: Config, *, folder: str | None = None, target: str | None = None, registry: str | None = None
) -> Run:
    """Relative paths are made absolute: Ray's workers have another working directory."""
    path = Path(folder or f"runs/{Path(name).stem}").resolve()
    return Run(
        folder=path,
        config=config,
        given_target=Path(target).resolve() if target else None,
        registry=_absolute(registry) if registry else str(path / "registry"),
    )


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine, for this process alone."""
    if not ray.is_initialized():
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            include_dashboard=False,
            logging_level="warning",
            log_to_driver=False,
        )


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).resolve())
