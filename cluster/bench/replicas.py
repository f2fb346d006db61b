"""The replicas of a deployment as Serve runs them: what each holds, and killing one without warning."""

from __future__ import annotations

import os
import signal

import ray
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError

from serve.model_replica import ReplicaStatus

SERVE_NAMESPACE = "serve"
"""Where Serve keeps its actors."""


class Replicas:
    """The replicas of one model deployment."""

    def __init__(self, app: str, deployment: str, *, answer_within_s: float = 5.0) -> None:
        self.name = f"{app}/{deployment}"
        self._handle = ray_serve.get_deployment_handle(deployment, app_name=app).options(_by_reference=True)
        self._answer_within_s = answer_within_s

    async def status(self) -> list[ReplicaStatus]:
        """Of every replica that answers; none of one that is starting, hanging or dead."""
        asked = self._handle.broadcast("status")
        try:
            answers = await asked.results_async(timeout_s=self._answer_within_s, return_exceptions=True)
        except (DeploymentUnavailableError, TimeoutError):
            return []
        return [answer for answer in answers if isinstance(answer, ReplicaStatus)]


def kill(actor: str) -> None:
    """End the actor's process with SIGKILL, on whatever machine it is; returns when Ray has noticed."""
    try:
        ray.get(ray.get_actor(actor, namespace=SERVE_NAMESPACE).__ray_call__.remote(_die))
    except RayActorError:
        return


def _die(actor: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
