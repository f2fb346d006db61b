"""The steps of a plan while it is made: each is added after those that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from train.capacity import Request
from train.publishing import Place
from train.stages import Stage, stage
from train.step import Step, Training
from train.tasks import Steps


class Graph:
    """Steps by the names of their stages, which lie in the folder `run`."""

    def __init__(self, run: Path) -> None:
        self.steps: dict[str, Step] = {}
        self._run = run
        self._shared: dict[str, Any] = {}

    def share(self, **inputs: object) -> None:
        """What every step that is added from now on builds on, too."""
        self._shared |= inputs

    def add(
        self,
        name: str,
        work: Callable[..., Steps],
        arguments: tuple[Any, ...],
        needs: Iterable[Stage],
        *,
        gpus: float = 0.0,
        actors: Request | None = None,
        training: Training | None = None,
        place: Place | None = None,
        **inputs: object,
    ) -> Stage:
        """The stage of a new step; `inputs` are what its results depend on, beside the stages that it needs."""
        inputs |= self._shared | {need.name: need for need in needs}
        made = stage(self._run, name, **inputs)
        self.steps[name] = Step(
            stage=made,
            needs=tuple(i for i in inputs.values() if isinstance(i, Stage)),
            work=work,
            arguments=arguments,
            gpus=gpus,
            actors=actors,
            training=training,
            place=place,
        )
        return made
