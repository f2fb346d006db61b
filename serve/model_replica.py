"""The two model deployments, Verifier and Drafter: thin Ray shells over `Replica`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import ray
import torch

from common.engine.drafting import Drafting
from common.engine.engine import Engine, Role
from common.engine.runner import ModelRunner
from common.engine.verification import Verification
from common.models import fingerprint, load_model, load_tokenizer
from common.registry import Registry
from serve.replica import LeaseGrant, Replica
from serve.settings import ReplicaSettings


class ModelReplica:
    """A Serve replica that runs one model in one role. Made by `Verifier` and `Drafter` below."""

    async def _start(self, folder: str | Path, name: str, role: Role, settings: ReplicaSettings) -> None:
        torch.set_num_threads(settings.threads)
        model = load_model(folder, dtype=settings.dtype)
        if settings.num_gpus:
            model.to("cuda")
        self._replica = Replica(
            lambda: Engine(
                ModelRunner(model, kv_tokens=settings.kv_tokens), role, prefill_chunk=settings.prefill_chunk
            ),
            name=name,
            fingerprint=fingerprint(load_tokenizer(folder), model.config),
            host=ray.util.get_node_ip_address(),
        )
        await self._replica.start()

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """One session's place; the call stays open as long as the session."""
        async for grant in self._replica.lease():
            yield grant

    def check_health(self) -> None:
        """Asked by Serve; raises when the engine is dead, and Serve replaces the replica."""
        self._replica.check_health()


class Verifier(ModelReplica):
    """Runs the target."""

    # Ray awaits an asynchronous constructor; type checkers do not know.
    async def __init__(self, target: str, name: str, settings: ReplicaSettings) -> None:  # type: ignore[misc]
        await self._start(target, name, Verification(), settings)


class Drafter(ModelReplica):
    """Runs one language's published drafter."""

    async def __init__(  # type: ignore[misc]
        self, registry: str, language: str, version: str, cache: str, settings: ReplicaSettings
    ) -> None:
        published = Registry(registry)
        manifest = published.manifest(language, version)
        folder = published.fetch(manifest, Path(cache))
        await self._start(folder, f"{language}/{version}", Drafting(), settings)
