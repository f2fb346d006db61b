"""The other ranks of a replica whose model is divided among several processes; see `common.engine.ranks`.

    placement group    bundle 0: the replica, rank 0     bundle 1: Rank     bundle 2: Rank …

They belong to the replica: Ray ends them when it ends. The loss of one is the loss of the replica, whose process then
ends, and Serve replaces it, ranks and all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import ray
import torch
from ray.exceptions import RayError
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from common.engine import ranks
from common.engine.ranks import RankLost
from common.engine.runner import ModelRunner
from serve.settings import ReplicaSettings

T = TypeVar("T")


class Rank:
    """One of them; made a Ray actor by `OtherRanks`."""

    def follow(self, folder: str, host: str, port: int, rank: int, settings: ReplicaSettings) -> None:
        """Until Ray ends it with its replica. Raises RankLost, and ModelError if the model cannot be loaded."""
        torch.set_num_threads(settings.threads)
        ranks.join(ranks.reach(host, port), rank=rank, ranks=settings.tensor_parallel, gpu=settings.num_gpus > 0)
        part = ranks.load_part(folder, ranks=settings.tensor_parallel, dtype=settings.dtype)
        ranks.follow(part, kv_tokens=settings.kv_tokens)


class OtherRanks:
    """Started at once, in the event loop of the replica, whose placement group has a bundle for each.

    Attributes:
        lost: done once one of them has ended; its result says why.
    """

    def __init__(self, folder: str | Path, settings: ReplicaSettings) -> None:
        host = ray.util.get_node_ip_address()
        self._folder = str(folder)
        self._settings = settings
        self._store = ranks.invite(host)
        self._actors = [_place(rank, settings) for rank in range(1, settings.tensor_parallel)]
        """Without a reference to it an actor ends."""
        following = [
            actor.follow.remote(self._folder, host, self._store.port, rank, settings)
            for rank, actor in enumerate(self._actors, start=1)
        ]
        self.lost = asyncio.create_task(_first_end([asyncio.wrap_future(each.future()) for each in following]))

    def runner(self) -> ModelRunner:
        """Rank 0's own, once all have loaded their parts. Raises RankLost, and ModelError as `load_part` does."""
        settings = self._settings
        ranks.join(self._store, rank=0, ranks=settings.tensor_parallel, gpu=settings.num_gpus > 0)
        part = ranks.load_part(self._folder, ranks=settings.tensor_parallel, dtype=settings.dtype)
        return ModelRunner(part, kv_tokens=settings.kv_tokens, tell=ranks.tell)


async def unless_lost(work: Awaitable[T], lost: asyncio.Task[RankLost]) -> T:
    """What `work` returns; raises RankLost if a rank is lost first: work may then never end."""
    working = asyncio.ensure_future(work)
    await asyncio.wait([working, lost], return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.add_done_callback(lambda done: done.cancelled() or done.exception())  # whose failure only follows
        raise lost.result()
    return working.result()


def _place(rank: int, settings: ReplicaSettings) -> ray.actor.ActorHandle[Rank]:
    """In its bundle; named after its replica, though not so that Serve would take it for one."""
    bundle = PlacementGroupSchedulingStrategy(get_current_placement_group(), placement_group_bundle_index=rank)
    actor = ray.remote(
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus,
        resources=settings.resources,
        scheduling_strategy=bundle,
        name=f"rank {rank} of {ray.get_runtime_context().get_actor_name()}",
    )(Rank)
    return actor.remote()


async def _first_end(following: list[asyncio.Future[None]]) -> RankLost:
    done, _ = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
    try:
        done.pop().result()
    except RayError as error:
        return RankLost(f"a rank of the model was lost: {str(error).strip().splitlines()[-1]}")
    return RankLost("a rank of the model has ended")
