"""Builders of the Serve applications: one for router and verifier, one per language for its drafter."""

from __future__ import annotations

from ray import serve as ray_serve
from ray.serve import Application, Deployment
from ray.serve.config import BackpressureConfig

from common.models import Fingerprint
from serve.handles import DRAFTER, DRAFTER_APP_PREFIX, VERIFIER
from serve.model_replica import Drafter, Verifier
from serve.router import Router
from serve.settings import ReplicaSettings, ServeSettings
from serve.telemetry.logs import serve_logging


def drafter_app_name(language: str) -> str:
    return DRAFTER_APP_PREFIX + language


def build_main(target: str, languages: list[str], settings: ServeSettings) -> Application:
    """Router and verifier."""
    verifier = _model_deployment(Verifier, VERIFIER, settings.verifier, settings)
    router = ray_serve.deployment(Router).options(
        name="Router",
        num_replicas=settings.router_replicas,
        # More than are answered: the router itself refuses the rest, in OpenAI's form.
        max_ongoing_requests=2 * settings.max_requests,
        # And not many more wait at a proxy, where nobody could tell them why.
        max_queued_requests=settings.max_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        ray_actor_options={"num_cpus": settings.router_cpus},
        logging_config=serve_logging(settings.logs),
    )
    return router.bind(target, languages, settings, verifier.bind(target, settings))


def build_drafter(
    target: Fingerprint, registry: str, language: str, cache: str, settings: ServeSettings
) -> Application:
    """The current drafter for a language; deploy it as `drafter_app_name(language)` with no route."""
    drafter = _model_deployment(Drafter, DRAFTER, settings.drafter, settings)
    return drafter.bind(target, registry, settings.registered(language), cache, settings)


def _model_deployment(shell: type, name: str, replica: ReplicaSettings, settings: ServeSettings) -> Deployment:
    fixed = {"num_replicas": replica.num_replicas}
    scaled = replica.autoscaling
    return ray_serve.deployment(shell).options(
        name=name,
        **(fixed if scaled is None else {"autoscaling_config": scaled.to_ray()}),
        max_ongoing_requests=replica.max_sessions,
        max_queued_requests=replica.max_sessions,
        # A text in progress holds a lease; a replica that is to stop waits for it.
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": replica.num_cpus, "num_gpus": replica.num_gpus},
        logging_config=serve_logging(settings.logs),
    )
