"""The two model deployments, Verifier and Drafter: thin Ray shells over `Replica`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import ray
import torch

from common.engine.drafting import Drafting
from common.engine.engine import Engine, Role
from common.engine.runner import ModelRunner
from common.engine.verification import Verification
from common.models import ModelError, fingerprint, load_model, load_tokenizer, mismatch
from common.registry import Manifest, Registry
from common.storage import RegistryError
from serve.logs import use_serve_handlers
from serve.replica import LeaseGrant, Replica
from serve.settings import ReplicaSettings, ServeSettings
from serve.tls import TlsSettings, server_context

logger = logging.getLogger(__name__)


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of a model deployment holds at the moment."""

    actor: str
    """Name of its Ray actor."""
    process: int
    """Its number on its machine."""
    leases: int
    sessions: int
    """In the engine, memory and all."""

    @property
    def held(self) -> int:
        """Texts in progress; what is left when there are none has leaked."""
        return max(self.leases, self.sessions)


def replica_status(replicas: Iterable[Replica]) -> ReplicaStatus:
    """Of the replicas in this process together."""
    replicas = tuple(replicas)
    return ReplicaStatus(
        actor=ray.get_runtime_context().get_actor_name() or "",
        process=os.getpid(),
        leases=sum(replica.num_leases for replica in replicas),
        sessions=sum(replica.num_sessions for replica in replicas),
    )


async def start_replica(
    folder: str | Path, name: str, role: Role, settings: ReplicaSettings, tls: TlsSettings | None
) -> Replica:
    """A replica of the model in `folder`, ready for leases. Raises ModelError if it cannot be loaded."""
    torch.set_num_threads(settings.threads)
    context = server_context(tls) if tls is not None else None

    def build() -> Replica:
        model = load_model(folder, dtype=settings.dtype)
        if settings.num_gpus:
            model.to("cuda")
        runner = ModelRunner(model, kv_tokens=settings.kv_tokens)
        engine = Engine(runner, role, prefill_chunk=settings.prefill_chunk)
        identity = fingerprint(load_tokenizer(folder), model.config)
        host = ray.util.get_node_ip_address()
        return Replica(lambda: engine, name=name, fingerprint=identity, host=host, tls=context)

    # In a thread: a replica that already serves goes on meanwhile.
    replica = await asyncio.to_thread(build)
    await replica.start()
    return replica


class Verifier:
    """Runs the target."""

    # Ray awaits an asynchronous constructor; type checkers do not know.
    async def __init__(self, target: str, settings: ServeSettings) -> None:  # type: ignore[misc]
        use_serve_handlers()
        name = settings.model_name
        self._replica = await start_replica(target, name, Verification(), settings.verifier, settings.tls)

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """One session's place; the call stays open as long as the session."""
        async for grant in self._replica.lease():
            yield grant

    def status(self) -> ReplicaStatus:
        """Asked of every replica at once, by `DeploymentHandle.broadcast`."""
        return replica_status([self._replica])

    def check_health(self) -> None:
        """Asked by Serve; raises when the engine is dead, and Serve replaces the replica."""
        self._replica.check_health()


class Drafter:
    """Runs one language's current drafter, and follows its registry.

    When another version is promoted it is loaded beside the one that serves; new texts go to it, those in progress
    end with the old one, and nothing is restarted.
    """

    async def __init__(  # type: ignore[misc]
        self, registry: str, language: str, cache: str, settings: ServeSettings
    ) -> None:
        use_serve_handlers()
        self._registry = Registry(registry)
        self._language = language
        self._cache = Path(cache)
        self._settings = settings
        self._retiring: dict[Replica, asyncio.Task[None]] = {}
        manifest = self._registry.current(language)
        if manifest is None:
            raise RegistryError(f"{language}: no drafter is promoted in registry {registry}")
        self._manifest = manifest
        self._replica = await self._load(manifest)
        self._following = asyncio.create_task(self._follow())

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """One session's place; the call stays open as long as the session."""
        async for grant in self._replica.lease():
            yield grant

    def status(self) -> ReplicaStatus:
        """Asked of every replica at once, by `DeploymentHandle.broadcast`."""
        return replica_status([self._replica, *self._retiring])

    def check_health(self) -> None:
        """Asked by Serve; raises when the engine, or what follows the registry, is dead."""
        self._replica.check_health()
        if self._following.done():
            self._following.result()

    async def _load(self, manifest: Manifest) -> Replica:
        folder = await asyncio.to_thread(self._registry.fetch, manifest, self._cache)
        name = f"{self._language}/{manifest.version}"
        return await start_replica(folder, name, Drafting(), self._settings.drafter, self._settings.tls)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.promotion_poll_s)
            try:
                current = await asyncio.to_thread(self._registry.current, self._language)
                if current is not None and current.version != self._manifest.version:
                    await self._replace(current)
            except (RegistryError, ModelError, OSError) as error:
                logger.warning("%s stays with %s: %s", self._language, self._manifest.version, error)

    async def _replace(self, manifest: Manifest) -> None:
        problem = mismatch(self._manifest.fingerprint, manifest.fingerprint)
        if problem is not None:
            raise RegistryError(f"version {manifest.version} does not fit what it would replace: {problem}")
        old, self._replica = self._replica, await self._load(manifest)
        logger.info("%s: %s replaces %s", self._language, manifest.version, self._manifest.version)
        self._manifest = manifest
        self._retiring[old] = asyncio.create_task(self._retire(old))

    async def _retire(self, replica: Replica) -> None:
        while replica.num_leases:
            await asyncio.sleep(self._settings.promotion_poll_s)
        await replica.stop()
        del self._retiring[replica]
