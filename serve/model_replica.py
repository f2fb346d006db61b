"""The two model deployments, Verifier and Drafter: thin Ray shells over `ModelHost`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import ray

from common.engine.drafting import Drafting
from common.engine.verification import Verification
from common.models import Fingerprint, ModelError, mismatch
from common.registry import Manifest, Registry
from common.storage import RegistryError
from serve.model_host import ModelHost
from serve.settings import ServeSettings
from serve.stream.replica import LeaseGrant
from serve.telemetry.logs import use_serve_handlers

logger = logging.getLogger(__name__)


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of a model deployment holds at the moment."""

    actor: str
    """Name of its Ray actor."""
    process: int
    """Its number on its machine."""
    node: str
    """Ray's id of the machine."""
    leases: int
    sessions: int
    """In the engine, memory and all."""

    @property
    def held(self) -> int:
        """Texts in progress; what is left when there are none has leaked."""
        return max(self.leases, self.sessions)


def replica_status(hosts: Iterable[ModelHost]) -> ReplicaStatus:
    """Of the models in this process together."""
    hosts, context = tuple(hosts), ray.get_runtime_context()
    return ReplicaStatus(
        actor=context.get_actor_name() or "",
        process=os.getpid(),
        node=context.get_node_id(),
        leases=sum(host.num_leases for host in hosts),
        sessions=sum(host.num_sessions for host in hosts),
    )


class Verifier:
    """Runs the target."""

    # Ray awaits an asynchronous constructor; type checkers do not know.
    async def __init__(self, target: str, settings: ServeSettings) -> None:  # type: ignore[misc]
        use_serve_handlers()
        name = settings.model_name
        self._host = await ModelHost.start(target, name, Verification(), settings.verifier, settings.tls)

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """One session's place; the call stays open as long as the session."""
        async for grant in self._host.lease():
            yield grant

    def status(self) -> ReplicaStatus:
        """Asked of every replica at once, by `DeploymentHandle.broadcast`."""
        return replica_status([self._host])

    def check_health(self) -> None:
        """Asked by Serve; raises when the engine is dead, and Serve replaces the replica."""
        self._host.check_health()


class Drafter:
    """Runs one language's current drafter, and follows its registry.

    When another version is promoted it is loaded beside the one that serves; new texts go to it, those in progress
    end with the old one, and nothing is restarted.
    """

    async def __init__(  # type: ignore[misc]
        self, target: Fingerprint, registry: str, language: str, cache: str, settings: ServeSettings
    ) -> None:
        use_serve_handlers()
        self._target = target
        self._registry = Registry(registry)
        self._language = language
        self._cache = Path(cache)
        self._settings = settings
        self._retiring: dict[ModelHost, asyncio.Task[None]] = {}
        manifest = self._registry.current(language)
        if manifest is None:
            raise RegistryError(f"{language}: no drafter is promoted in registry {registry}")
        self._manifest = manifest
        self._host = await self._load(manifest)
        self._unusable: str | None = None
        """The version that is promoted and cannot be used; it is not tried again before it is promoted again."""
        self._following = asyncio.create_task(self._follow())

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """One session's place; the call stays open as long as the session."""
        async for grant in self._host.lease():
            yield grant

    def status(self) -> ReplicaStatus:
        """Asked of every replica at once, by `DeploymentHandle.broadcast`."""
        return replica_status([self._host, *self._retiring])

    def check_health(self) -> None:
        """Asked by Serve; raises when the engine, or what follows the registry, is dead."""
        self._host.check_health()
        if self._following.done():
            self._following.result()

    async def _load(self, manifest: Manifest) -> ModelHost:
        folder = await asyncio.to_thread(self._registry.fetch, manifest, self._cache)
        name, role = f"{self._language}/{manifest.version}", Drafting(self._settings.drafter.tokens_ahead)
        return await ModelHost.start(folder, name, role, self._settings.drafter, self._settings.tls)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.promotion_poll_s)
            try:
                current = await asyncio.to_thread(self._registry.current, self._language)
                if current is None or current.version == self._manifest.version:
                    self._unusable = None
                elif current.version != self._unusable:
                    await self._replace(current)
            except (RegistryError, OSError) as error:
                logger.warning("%s stays with %s: %s", self._language, self._manifest.version, error)

    async def _replace(self, manifest: Manifest) -> None:
        """Raises RegistryError or OSError if it may yet succeed."""
        context_length = self._settings.context_length(self._target.context_length)
        problem = mismatch(self._target, manifest.fingerprint, context_length)
        if problem is not None:
            return self._refuse(manifest, ModelError(problem))
        # What serves must survive whatever another version breaks on, be it memory or a model's own code.
        loading = asyncio.create_task(self._load(manifest))
        await asyncio.wait([loading])
        error = loading.exception()
        if error is not None and not isinstance(error, RegistryError | OSError):
            return self._refuse(manifest, error)
        old, self._host = self._host, loading.result()
        logger.info("%s: %s replaces %s", self._language, manifest.version, self._manifest.version)
        self._manifest = manifest
        self._retiring[old] = asyncio.create_task(self._retire(old))

    def _refuse(self, manifest: Manifest, error: BaseException) -> None:
        self._unusable = manifest.version
        versions = self._language, self._manifest.version, manifest.version
        logger.error("%s stays with %s: %s cannot be used", *versions, exc_info=error)

    async def _retire(self, host: ModelHost) -> None:
        while host.num_leases:
            await asyncio.sleep(self._settings.promotion_poll_s)
        await host.stop()
        del self._retiring[host]
