"""What the legs of a round take beside the models' steps, on this machine: an input of `cluster.capacity`."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.bench.emulated_service import write_target
from cluster.bench.mix_measurement import replicas_of, write
from cluster.bench.mixes import one_language
from cluster.capacity.costs import Coordination, Leg
from serve.router import TargetModel

MANY = 32
"""Texts, where what each of them adds is measured."""
DRAFTED = 4


def measure_coordination(*, seconds: float = 4.0, warm_up_s: float = 2.0) -> Coordination:
    """By rounds of stated steps, of one text and of many, plain and with drafts; each for so many seconds."""
    beyond_ms = {}
    with TemporaryDirectory() as folder:
        target = TargetModel(str(write_target(Path(folder))))
        with replicas_of(one_language(MANY, DRAFTED), target) as replicas:
            for streams, drafted in product((1, MANY), (0, DRAFTED)):
                mix = one_language(streams, drafted)
                [measured] = write(mix, target, replicas, seconds=seconds, warm_up_s=warm_up_s).values()
                beyond_ms[streams, drafted] = 1e3 * (measured.round_s(streams) - mix.steps_s(drafted))
    one, many = beyond_ms[1, 0], beyond_ms[MANY, 0]
    return Coordination(
        verify=_leg(one, many), draft=_leg(beyond_ms[1, DRAFTED] - one, beyond_ms[MANY, DRAFTED] - many)
    )


def _leg(one_ms: float, many_ms: float) -> Leg:
    """The straight line; no leg takes less than nothing, whatever the clock says."""
    text_ms = max(0.0, many_ms - one_ms) / (MANY - 1)
    return Leg(base_ms=round(max(0.0, one_ms - text_ms), 4), text_ms=round(text_ms, 4))
