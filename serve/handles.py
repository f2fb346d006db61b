"""Ray Serve deployments as lease sources: Ray's calls and errors in, ours out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from ray import serve as ray_serve
from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from common.models import Fingerprint, mismatch
from serve.errors import ReplicaLost, ServiceOverloaded
from serve.lease import LeaseSource
from serve.replica import LeaseGrant

MAIN_APP = "polydraft"
"""The application of router and verifier."""

VERIFIER, DRAFTER = "Verifier", "Drafter"
"""Names of the model deployments."""

DRAFTER_APP_PREFIX = "drafter-"
"""The application `drafter-de` holds the drafter for German."""

_USABLE = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING, ApplicationStatus.UNHEALTHY)
_LOST = (RayActorError, RayTaskError, TaskCancelledError, RequestCancelledError, DeploymentUnavailableError)
logger = logging.getLogger(__name__)


def leases_of(handle: DeploymentHandle) -> LeaseSource:
    """The deployment's `lease` method as a lease source: a streaming call that stays open.

    The source raises ServiceOverloaded when the deployment's queue is full.
    """

    async def leases() -> AsyncGenerator[LeaseGrant]:
        response = handle.options(stream=True).lease.remote()
        try:
            async for grant in response:
                yield grant
        except BackPressureError as error:
            raise ServiceOverloaded("too many requests in progress") from error
        except _LOST as error:
            raise ReplicaLost(str(error).strip().splitlines()[-1]) from error
        finally:
            response.cancel()

    return leases


class Directory:
    """What is deployed, found out from Serve's own list of applications: drafters that fit the target, and verifiers.

    A language is added, replaced or removed by deploying or deleting its application: nothing else is told.

    Args:
        target: the fingerprint that a drafter must fit.
        refresh_s: how old the list may be.
    """

    def __init__(self, target: Fingerprint, *, refresh_s: float = 2.0) -> None:
        self._target = target
        self._refresh_s = refresh_s
        self._deployed: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._handles: dict[str, DeploymentHandle] = {}
        self._verifier_running = False
        self._fresh_until = 0.0
        self._lock = asyncio.Lock()

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with a usable drafter, as last seen."""
        return tuple(sorted(lang for lang, when in self._deployed.items() if self._refused.get(lang) != when))

    async def verifier_running(self) -> bool:
        """Whether a verifier replica is up."""
        await self._refresh()
        return self._verifier_running

    async def source(self, language: str | None) -> LeaseSource | None:
        """Where to lease the language's drafter; None decodes plainly."""
        await self._refresh()
        if language not in self.languages:
            return None
        if language not in self._handles:
            self._handles[language] = await asyncio.to_thread(
                ray_serve.get_deployment_handle, DRAFTER, app_name=DRAFTER_APP_PREFIX + language
            )
        return self._checked(leases_of(self._handles[language]), language)

    def _checked(self, source: LeaseSource, language: str) -> LeaseSource:
        """Refuses a drafter that does not fit the target, until its application is deployed anew."""

        async def leases() -> AsyncGenerator[LeaseGrant]:
            async for grant in source():
                problem = mismatch(self._target, grant.fingerprint)
                if problem is not None:
                    self._refused[language] = self._deployed[language]
                    logger.error("drafter %s is refused: %s", grant.name, problem)
                    raise ReplicaLost(f"drafter {grant.name} does not fit the target")
                yield grant

        return leases

    async def _refresh(self) -> None:
        async with self._lock:
            if time.monotonic() < self._fresh_until:
                return
            self._fresh_until = time.monotonic() + self._refresh_s
            try:
                status = await asyncio.to_thread(ray_serve.status)
            except (RayError, RayServeException) as error:
                logger.warning("Serve does not tell its applications, the last list is used: %s", error)
                return
            main = status.applications.get(MAIN_APP)
            self._verifier_running = main is not None and bool(main.deployments[VERIFIER].replica_states.get("RUNNING"))
            self._deployed = {
                name.removeprefix(DRAFTER_APP_PREFIX): app.last_deployed_time_s
                for name, app in status.applications.items()
                if name.startswith(DRAFTER_APP_PREFIX) and app.status in _USABLE
            }
