"""Builders of the Serve applications: one for router and verifier, one per language for its drafter.

`main` and `drafter` are what a file for `serve deploy` names as ``import_path``, with their arguments as ``args``.
"""

from __future__ import annotations

from typing import Any

from ray import serve as ray_serve
from ray.serve import Application, Deployment
from ray.serve.config import BackpressureConfig

from common.models import Fingerprint, fingerprint, load_config, load_tokenizer
from common.settings import Settings, convert
from serve.handles import DRAFTER, DRAFTER_APP_PREFIX, ROUTER, VERIFIER
from serve.model_replica import Drafter, Verifier
from serve.router import Router
from serve.settings import ReplicaSettings, ServeSettings
from serve.telemetry.logs import serve_logging


def drafter_app_name(language: str) -> str:
    return DRAFTER_APP_PREFIX + language


class MainArguments(Settings, frozen=True, kw_only=True):
    """Of the application of router and verifier."""

    target: str
    """Folder of the target model, as the cluster's machines see it."""
    serve: ServeSettings = ServeSettings()
    """Of what is not about drafters: only so can those change without a restart of the rest."""


class DrafterArguments(Settings, frozen=True, kw_only=True):
    """Of one language's application."""

    target: str
    """As in MainArguments; only its tokenizer and its shape are read."""
    registry: str
    language: str
    cache: str
    """Folder on the replica's machine for fetched versions."""
    serve: ServeSettings = ServeSettings()


def main(args: dict[str, Any]) -> Application:
    """Router and verifier. Raises SettingsError naming the argument."""
    chosen = convert(args, MainArguments, where="args")
    return build_main(chosen.target, [], chosen.serve)


def drafter(args: dict[str, Any]) -> Application:
    """One language's drafter. Raises SettingsError naming the argument, ModelError if the target cannot be read."""
    chosen = convert(args, DrafterArguments, where="args")
    wanted = fingerprint(load_tokenizer(chosen.target), load_config(chosen.target))
    return build_drafter(wanted, chosen.registry, chosen.language, chosen.cache, chosen.serve)


def build_main(target: str, languages: list[str], settings: ServeSettings) -> Application:
    """Router and verifier; `languages` are told apart even while they have no drafter."""
    verifier = _model_deployment(Verifier, VERIFIER, settings.verifier, settings)
    router = ray_serve.deployment(Router).options(
        name=ROUTER,
        num_replicas=settings.router_replicas,
        # More than are answered: the router itself refuses the rest, in OpenAI's form.
        max_ongoing_requests=2 * settings.max_requests,
        # And not many more wait at a proxy, where nobody could tell them why.
        max_queued_requests=settings.max_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        ray_actor_options={"num_cpus": settings.router_cpus},
        logging_config=serve_logging(settings.logs),
        user_config=user_config(languages),
    )
    return router.bind(target, settings, verifier.bind(target, settings))


def user_config(languages: list[str]) -> dict[str, Any]:
    """What the router is told anew without a restart."""
    return {"languages": languages}


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
        ray_actor_options={
            "num_cpus": replica.num_cpus,
            "num_gpus": replica.num_gpus,
            "resources": replica.resources,
        },
        **_placement(replica),
        logging_config=serve_logging(settings.logs),
    )


def _placement(replica: ReplicaSettings) -> dict[str, Any]:
    """A bundle for each rank, the replica's own first; on one machine if one has room for all."""
    if replica.tensor_parallel == 1:
        return {}
    bundle = {name: amount for name, amount in replica.needs.items() if amount}
    return {"placement_group_bundles": [bundle] * replica.tensor_parallel, "placement_group_strategy": "PACK"}
