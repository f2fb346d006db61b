"""Ray Serve deployments as lease sources: Ray's calls and errors in, ours out."""

from __future__ import annotations

import asyncio
import contextlib
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
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from ray.serve.schema import ApplicationStatus, DeploymentStatusOverview, ReplicaState

from common.models import Fingerprint, mismatch
from serve.errors import ReplicaLost, ServiceOverloaded
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant

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
            _cancel(response)

    return leases


def _cancel(response: DeploymentResponseGenerator[LeaseGrant]) -> None:
    """A call that has failed raises its error once more when it is cancelled."""
    with contextlib.suppress(BackPressureError, *_LOST):
        response.cancel()


class Directory:
    """What is deployed, found out from Serve's own list of applications: drafters that fit the target, and verifiers.

    A language is added, replaced or removed by deploying or deleting its application: nothing else is told.
    Implements `speculation.Drafters`.

    Args:
        target: the fingerprint that a drafter must fit.
        refresh_s: how old the list may be.
        refusal_s: how long a drafter that does not fit is left alone.
    """

    def __init__(self, target: Fingerprint, *, refresh_s: float, refusal_s: float = 30.0) -> None:
        self._target = target
        self._refresh_s = refresh_s
        self._refusal_s = refusal_s
        self._deployed: dict[str, bool] = {}
        self._refused_until: dict[str, float] = {}
        self._handles: dict[str, DeploymentHandle] = {}
        self._verifiers = 0
        self._fresh_until = 0.0
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Usable drafters, as last seen, warm or cold."""
        now = time.monotonic()
        return tuple(sorted(name for name in self._deployed if self._refused_until.get(name, 0.0) < now))

    @property
    def warm(self) -> tuple[str, ...]:
        """Those with a running replica."""
        return tuple(name for name in self.names if self._deployed[name])

    @property
    def verifiers(self) -> int:
        """Verifier replicas that run, as last seen."""
        return self._verifiers

    def source(self, name: str | None) -> LeaseSource | None:
        """Where to lease a drafter; None if there is none of that name."""
        if name not in self.names:
            return None
        handle = self._handles.get(name)
        return self._checked(leases_of(handle), name) if handle is not None else None

    async def refresh(self) -> None:
        """Look again if the list is old. Only the first look is waited for: later ones go on beside the requests."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._look())
            self._fresh_until = time.monotonic() + self._refresh_s
            await asyncio.shield(self._refreshing)
        elif self._refreshing.done() and time.monotonic() >= self._fresh_until:
            self._refreshing.result()  # whatever it died of is told to whoever asks next
            self._refreshing = asyncio.create_task(self._look())
            self._fresh_until = time.monotonic() + self._refresh_s

    def _checked(self, source: LeaseSource, name: str) -> LeaseSource:
        """Refuses a drafter that does not fit the target; after a while it may have been replaced."""

        async def leases() -> AsyncGenerator[LeaseGrant]:
            async for grant in source():
                problem = mismatch(self._target, grant.fingerprint)
                if problem is not None:
                    self._refused_until[name] = time.monotonic() + self._refusal_s
                    logger.error("drafter %s is refused: %s", grant.name, problem)
                    raise ReplicaLost(f"drafter {grant.name} does not fit the target")
                yield grant

        return leases

    async def _look(self) -> None:
        try:
            status = await asyncio.to_thread(ray_serve.status)
        except (RayError, RayServeException) as error:
            logger.warning("Serve does not tell its applications, the last list is used: %s", error)
            return
        main = status.applications.get(MAIN_APP)
        self._verifiers = _running(main.deployments[VERIFIER]) if main is not None else 0
        deployed = {
            name.removeprefix(DRAFTER_APP_PREFIX): DRAFTER in app.deployments and _running(app.deployments[DRAFTER]) > 0
            for name, app in status.applications.items()
            if name.startswith(DRAFTER_APP_PREFIX) and app.status in _USABLE
        }
        for name in deployed.keys() - self._handles.keys():
            self._handles[name] = await asyncio.to_thread(
                ray_serve.get_deployment_handle, DRAFTER, app_name=DRAFTER_APP_PREFIX + name
            )
        self._deployed = deployed


def _running(deployment: DeploymentStatusOverview) -> int:
    return deployment.replica_states.get(ReplicaState.RUNNING, 0)
