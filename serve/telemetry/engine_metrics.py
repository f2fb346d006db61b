"""What a model replica counts and measures. Serve's labels tell whose numbers they are: `deployment` is Verifier or
Drafter; `model` tells the versions apart of which one drafter serves two while it replaces the older."""

from __future__ import annotations

import msgspec

from common.engine.sessions import MemoryUse
from common.types import StepCost
from serve.telemetry.instruments import Backend, Instruments
from serve.telemetry.metric_names import ENGINE_METRICS

_NO_MEMORY = MemoryUse(free_blocks=0, cached_blocks=0, held_blocks=0, prefix_hit_tokens=0, preemptions=0)


class EngineMetrics:
    """The numbers of one engine.

    Args:
        backend: the module `ray.serve.metrics`.
        model: the target's name, or the drafter's version such as `de/v0003`.
    """

    def __init__(self, backend: Backend, model: str) -> None:
        self._instruments = Instruments(backend, ENGINE_METRICS)
        self._model = model
        self._memory = _NO_MEMORY

    def step_finished(self, cost: StepCost) -> None:
        """A forward pass is over, and what it cost. May be called from the engine's thread."""
        self._instruments.tally("polydraft_engine_step_seconds", cost.seconds, self._model)
        self._instruments.tally("polydraft_engine_step_tokens", cost.tokens, self._model)

    def flush(self, *, running: int, waiting: int, memory: MemoryUse) -> None:
        """Hand over to Ray what has come since the last time, and how the engine's sessions and memory are now."""
        for state, sessions in (("running", running), ("waiting", waiting)):
            self._instruments.set("polydraft_engine_sessions", sessions, self._model, state)
        blocks = {"free": memory.free_blocks, "cached": memory.cached_blocks, "held": memory.held_blocks}
        for state, count in blocks.items():
            self._instruments.set("polydraft_kv_blocks", count, self._model, state)
        before, self._memory = self._memory, memory
        preemptions, hits = memory.preemptions - before.preemptions, memory.prefix_hit_tokens - before.prefix_hit_tokens
        self._instruments.add("polydraft_num_preemptions", preemptions, self._model)
        self._instruments.add("polydraft_prefix_cache_hits", hits, self._model)
        self._instruments.flush()

    def stopped(self) -> None:
        """The engine and its memory are gone; without this its last numbers would be told for ever."""
        gone = msgspec.structs.replace(self._memory, free_blocks=0, cached_blocks=0, held_blocks=0)
        self.flush(running=0, waiting=0, memory=gone)
