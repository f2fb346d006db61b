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
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ReplicaState

from common.models import Fingerprint, mismatch
from serve.errors import ReplicaLost, ServiceOverloaded
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant

MAIN_APP = "polydraft"
"""The application of router and verifier."""

ROUTER, VERIFIER, DRAFTER = "Router", "Verifier", "Drafter"
"""Names of the deployments."""

DRAFTER_APP_PREFIX = "drafter-"
"""The application `drafter-de` holds the drafter for German."""

_USABLE = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING, ApplicationStatus.UNHEALTHY)
_LOST = (RayActorError, RayTaskError, TaskCancelledError, RequestCancelledError, DeploymentUnavailableError)
_NEW_S = 1.0
"""A list of this age is not made again, whoever asks: a look costs Serve tens of milliseconds an application."""
_PATIENCE_S = 5.0
"""Longest wait for a look: what Serve does not tell by then is not known."""
logger = logging.getLogger(__name__)


def leases_of(handle: DeploymentHandle) -> LeaseSource:
    """The deployment's `lease` method as a lease source: a streaming call that stays open.

    The source raises ServiceOverloaded when the deployment's queue is full.
    """

    async def leases() -> AsyncGenerator[LeaseGrant]:
        # Whatever Serve is set to: Ray's own calls tell a dead replica from one that cannot be reached, gRPC does not.
        response = handle.options(stream=True, _by_reference=True).lease.remote()
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
        context_length: of the longest text that is served.
        refresh_s: how old the list may be.
        refusal_s: how long a drafter that does not fit is left alone.
    """

    def __init__(self, target: Fingerprint, context_length: int, *, refresh_s: float, refusal_s: float = 30.0) -> None:
        self._target = target
        self._context_length = context_length
        self._refresh_s = refresh_s
        self._refusal_s = refusal_s
        self._deployed: dict[str, bool] | None = None
        self._refused_until: dict[str, float] = {}
        self._handles: dict[str, DeploymentHandle] = {}
        self._verifiers = 0
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Usable drafters, as last seen, warm or cold."""
        now = time.monotonic()
        return tuple(sorted(name for name in self._deployed or () if self._refused_until.get(name, 0.0) < now))

    @property
    def warm(self) -> tuple[str, ...]:
        """Those with a running replica."""
        return tuple(name for name in self.names if self._deployed and self._deployed[name])

    @property
    def verifiers(self) -> int:
        """Verifier replicas that run, as last seen."""
        return self._verifiers

    def source(self, name: str | None) -> LeaseSource | None:
        """Where to lease a drafter; None if there is none of that name."""
        if name is None or name not in self.names:
            return None
        return self._checked(leases_of(self._handles[name]), name)

    async def refresh(self) -> None:
        """Look again if the list is old. Waited for while there is none: later looks go on beside the requests."""
        looking = self._begin_look(self._refresh_s if self._deployed is not None else _NEW_S)
        if self._deployed is None:
            await asyncio.wait([looking], timeout=_PATIENCE_S)

    async def look(self) -> None:
        """Look again, for what is not on the list, unless it is new; waits for a look that is under way."""
        await asyncio.wait([self._begin_look(_NEW_S)], timeout=_PATIENCE_S)

    def _begin_look(self, age_s: float) -> asyncio.Task[None]:
        """The latest look; a new one if it has ended and was begun `age_s` ago."""
        now = time.monotonic()
        if self._looking is None or (self._looking.done() and now >= self._looked_at + age_s):
            self._looked_at = now
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(_tell_failure)
        return self._looking

    def _checked(self, source: LeaseSource, name: str) -> LeaseSource:
        """Refuses a drafter that does not fit the target; after a while it may have been replaced."""

        async def leases() -> AsyncGenerator[LeaseGrant]:
            async for grant in source():
                problem = mismatch(self._target, grant.fingerprint, self._context_length)
                if problem is not None:
                    self._refused_until[name] = time.monotonic() + self._refusal_s
                    logger.error("drafter %s is refused: %s", grant.name, problem)
                    raise ReplicaLost(f"drafter {grant.name} does not fit the target")
                yield grant

        return leases

    async def _look(self) -> None:
        try:
            status = await asyncio.to_thread(ray_serve.status)
            drafters = {
                name.removeprefix(DRAFTER_APP_PREFIX): _running(app, DRAFTER) > 0
                for name, app in status.applications.items()
                if name.startswith(DRAFTER_APP_PREFIX) and app.status in _USABLE
            }
            deployed = {name: warm for name, warm in drafters.items() if await self._handle_known(name)}
        except (RayError, RayServeException) as error:
            logger.warning("Serve does not tell its applications, the last list is used: %s", error)
            return
        self._verifiers = _running(status.applications.get(MAIN_APP), VERIFIER)
        self._deployed = deployed

    async def _handle_known(self, name: str) -> bool:
        """Whether the drafter can be called: an application is listed before its deployments are."""
        if name not in self._handles:
            app = DRAFTER_APP_PREFIX + name
            try:
                self._handles[name] = await asyncio.to_thread(ray_serve.get_deployment_handle, DRAFTER, app_name=app)
            except KeyError:
                return False
        return True


def _running(app: ApplicationStatusOverview | None, deployment: str) -> int:
    """Replicas; none of a deployment that is not listed yet."""
    found = app.deployments.get(deployment) if app is not None else None
    return found.replica_states.get(ReplicaState.RUNNING, 0) if found is not None else 0


def _tell_failure(looking: asyncio.Task[None]) -> None:
    """The next look may succeed: requests go on with the last list."""
    if not looking.cancelled() and looking.exception() is not None:
        logger.error("what is deployed could not be found out", exc_info=looking.exception())
