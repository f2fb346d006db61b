"""One model in one role, ready for leases: its engine, its replica, and its numbers for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import ray
import torch
from ray.serve import metrics as ray_metrics

from common.engine.drafters import load_drafter
from common.engine.drafting import Drafting
from common.engine.engine import Engine, Role
from common.engine.ranks import RankLost
from common.engine.runner import Runner
from common.models import fingerprint, load_config, load_model, load_tokenizer
from serve.model_runner import model_runner
from serve.ranks import OtherRanks, unless_lost
from serve.settings import ReplicaSettings
from serve.stream.replica import LeaseGrant, Replica
from serve.stream.tls import TlsSettings, server_context
from serve.telemetry.engine_metrics import EngineMetrics
from serve.telemetry.instruments import flush_forever

logger = logging.getLogger(__name__)


class ModelHost:
    """Made by `start`, in the event loop that serves it."""

    def __init__(self, engine: Engine, replica: Replica, metrics: EngineMetrics, ranks: OtherRanks | None) -> None:
        self._engine = engine
        self._replica = replica
        self._metrics = metrics
        self._ranks = ranks
        if ranks is not None:
            ranks.lost.add_done_callback(_end_process)
        self._flushing = asyncio.create_task(flush_forever(self._flush))

    @classmethod
    async def start(
        cls, folder: str | Path, name: str, role: Role, settings: ReplicaSettings, tls: TlsSettings | None
    ) -> ModelHost:
        """Load the model in `folder` and listen.

        Raises ModelError if it cannot be loaded, RankLost if another of its ranks could not, SettingsError for `tls`.
        """
        metrics = EngineMetrics(ray_metrics, name)
        context = server_context(tls) if tls is not None else None
        ranks = OtherRanks(folder, settings) if settings.tensor_parallel > 1 else None

        def build() -> tuple[Engine, Replica]:
            torch.set_num_threads(settings.threads)
            runner = ranks.runner() if ranks is not None else _runner(folder, role, settings)
            engine = Engine(
                runner,
                role,
                prefill_chunk=settings.prefill_chunk,
                prefix_caching=settings.prefix_caching,
                on_step=metrics.step_finished,
            )
            identity = fingerprint(load_tokenizer(folder), load_config(folder))
            return engine, Replica(
                lambda: engine,
                name=name,
                fingerprint=identity,
                host=ray.util.get_node_ip_address(),
                tls=context,
                longest_step_s=settings.longest_step_s,
            )

        # In a thread: a model that already serves in this process goes on meanwhile.
        building = asyncio.to_thread(build)
        engine, replica = await (building if ranks is None else unless_lost(building, ranks.lost))
        await replica.start()
        return cls(engine, replica, metrics, ranks)

    async def stop(self) -> None:
        assert self._ranks is None, "a divided model ends with its process"
        await self._replica.stop()
        self._flushing.cancel()
        await asyncio.wait([self._flushing])
        self._metrics.stopped()

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """See `Replica.lease`."""
        async for grant in self._replica.lease():
            yield grant

    @property
    def num_leases(self) -> int:
        return self._replica.num_leases

    @property
    def num_sessions(self) -> int:
        """In the engine; after a lease's end its session is there until the engine's next step."""
        return self._engine.num_sessions

    def check_health(self) -> None:
        """Raises ReplicaLost if the engine is dead, and whatever the telling of numbers died of."""
        self._replica.check_health()
        if self._flushing.done():
            self._flushing.result()

    def _flush(self) -> None:
        waiting = self._engine.num_waiting
        self._metrics.flush(running=self._engine.num_sessions - waiting, waiting=waiting, memory=self._engine.memory)


def _runner(folder: str | Path, role: Role, settings: ReplicaSettings) -> Runner:
    """Of a model that is whole in this process."""
    load = load_drafter if isinstance(role, Drafting) else load_model
    return model_runner(load(folder, dtype=settings.dtype), settings)


def _end_process(lost: asyncio.Task[RankLost]) -> None:
    """The loss of a rank is the loss of the replica.

    A process that is gone Serve replaces at once. One that lives and is not well it asks again for some seconds, and
    sends texts there meanwhile; nor would a thread that waits for the lost rank ever end.
    """
    if not lost.cancelled():
        logger.critical("%s: this process ends", lost.result())
        logging.shutdown()
        os._exit(1)
