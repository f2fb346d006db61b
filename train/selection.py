"""Choosing among a plan's steps: they are a graph, in which every step comes after those that it needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from train.stages import Stage
from train.step import Step

Steps = dict[str, Step]


def with_needs(steps: Steps, wanted: Iterable[str]) -> Steps:
    """The steps of these names, and those that they build on."""
    names = set(wanted)
    for name, step in reversed(steps.items()):
        if name in names:
            names |= {need.name for need in step.needs}
    return {name: step for name, step in steps.items() if name in names}


def of_owners(steps: Steps, owners: Iterable[str]) -> Steps:
    """The steps of some languages, and those that they build on.

    A comparison with a baseline that is not there yet is left out: it takes all languages to make one.
    """
    own = set(owners)

    def at_hand(need: Stage) -> bool:
        return need.done or need.name == "target" or steps[need.name].owner in own

    return with_needs(steps, (name for name, s in steps.items() if s.owner in own and all(map(at_hand, s.needs))))


def until(steps: Steps, kind: str) -> Steps:
    """The steps of a kind (one of STAGES), and those that they build on."""
    return with_needs(steps, (name for name, step in steps.items() if step.kind == kind))


def since(steps: Steps, kind: str, owners: Collection[str] = ()) -> list[str]:
    """The names of the steps of a kind (one of STAGES) and of all that build on them; only of `owners`, if any."""
    chosen: list[str] = []
    for name, step in steps.items():
        builds_on_chosen = any(need.name in chosen for need in step.needs)
        if (step.kind == kind or builds_on_chosen) and (not owners or step.owner in owners):
            chosen.append(name)
    return chosen
