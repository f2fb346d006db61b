"""Builders of the Serve applications: one for router and verifier, one per language for its drafter."""

from __future__ import annotations

from typing import Any

from ray import serve as ray_serve
from ray.serve import Application

from serve.handles import DRAFTER, DRAFTER_APP_PREFIX, VERIFIER
from serve.model_replica import Drafter, Verifier
from serve.router import Router
from serve.settings import ReplicaSettings, ServeSettings


def drafter_app_name(language: str) -> str:
    return DRAFTER_APP_PREFIX + language


def build_main(target: str, languages: list[str], settings: ServeSettings) -> Application:
    """Router and verifier."""
    verifier = ray_serve.deployment(Verifier).options(name=VERIFIER, **_model_options(settings.verifier, settings.request_timeout_s))
    router = ray_serve.deployment(Router).options(
        name="Router",
        num_replicas=settings.router_replicas,
        max_ongoing_requests=settings.max_requests,
        ray_actor_options={"num_cpus": settings.router_cpus},
    )
    return router.bind(target, languages, settings, verifier.bind(target, settings.model_name, settings.verifier))


def build_drafter(registry: str, language: str, cache: str, settings: ServeSettings) -> Application:
    """The current drafter of a language; deploy it as `drafter_app_name(language)` with no route."""
    options = _model_options(settings.drafter, settings.request_timeout_s)
    drafter = ray_serve.deployment(Drafter).options(name=DRAFTER, **options)
    return drafter.bind(registry, language, cache, settings.promotion_poll_s, settings.drafter)


def _model_options(settings: ReplicaSettings, longest_text_s: float) -> dict[str, Any]:
    return {
        "num_replicas": settings.num_replicas,
        "max_ongoing_requests": settings.max_sessions,
        "max_queued_requests": settings.max_sessions,
        # A text in progress holds a lease; shutting down waits for it.
        "graceful_shutdown_timeout_s": longest_text_s,
        "health_check_period_s": 2,
        "ray_actor_options": {"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
    }
