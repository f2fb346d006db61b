"""Deploying on Ray Serve: the main application, and one per language for its drafter."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from ray import serve as ray_serve
from ray.serve.config import HTTPOptions

from cluster.config import Config
from common.languages import GENERALIST
from common.models import fingerprint, load_config, load_tokenizer, mismatch
from common.registry import Manifest, Registry
from serve.app import build_drafter, build_main, drafter_app_name
from serve.handles import MAIN_APP
from serve.settings import ServeSettings

PROXY_MARGIN_S = 30.0
"""How much longer Serve's proxy waits than the router, which begins later and answers in OpenAI's form."""

logger = logging.getLogger(__name__)


def usable_drafters(config: Config, target: Path, registry: str) -> dict[str, Manifest]:
    """The current drafter for each language, and the generalist if there is one, less those that do not fit the target.

    Logs what will not be served, and texts that will not be drafted for want of memory.
    Raises ModelError if the target cannot be used, RegistryError if the registry cannot.
    """
    wanted = fingerprint(load_tokenizer(target), load_config(target))
    context = config.serve.context_length(wanted.context_length)
    _tell_limits(config.serve, wanted.context_length)
    published, usable = Registry(registry), {}
    generalist = [GENERALIST] if published.current(config.serve.registered(GENERALIST)) is not None else []
    for language in [*config.languages, *generalist]:
        manifest = published.current(config.serve.registered(language))
        problem = "none is published" if manifest is None else mismatch(wanted, manifest.fingerprint, context)
        if manifest is None or problem is not None:
            logger.warning("%s is served without a drafter: %s", language, problem)
        else:
            usable[language] = manifest
    return usable


def deploy(
    config: Config,
    target: Path,
    registry: str,
    cache: Path,
    drafters: Collection[str],
    proxies: Literal["EveryNode", "HeadOnly"] = "EveryNode",
) -> None:
    """Start everything and wait until it answers. Raises SettingsError if the API keys cannot be read, or the
    folder for captured prompts cannot be written to."""
    serve = config.serve
    serve.protection.all_keys()
    if serve.capture is not None:
        serve.capture.check()
    ray_serve.start(proxy_location=proxies, http_options=HTTPOptions(**http_options(serve)))
    main = build_main(str(target.resolve()), list(config.languages), serve)
    targets = [ray_serve.RunTarget(target=main, name=MAIN_APP, route_prefix="/")]
    targets += [_drafter_target(config, target, registry, cache, name) for name in drafters]
    ray_serve.run_many(targets)


def http_options(serve: ServeSettings) -> dict[str, Any]:
    """Of Serve's proxies."""
    return {"host": serve.host, "port": serve.port, "request_timeout_s": serve.request_timeout_s + PROXY_MARGIN_S}


def deploy_drafter(config: Config, target: Path, registry: str, cache: Path, name: str) -> None:
    """Add or restart one drafter; nothing else is touched."""
    ray_serve.run_many([_drafter_target(config, target, registry, cache, name)])


def _tell_limits(serve: ServeSettings, model_context: int) -> None:
    context, drafted = serve.context_length(model_context), serve.drafter.longest_text
    if context < model_context:
        logger.warning(
            "texts have at most %d tokens: serve.verifier.kv_tokens holds no more of the target's context of %d",
            context,
            model_context,
        )
    if drafted < context:
        logger.warning(
            "texts of more than %d tokens, max_tokens included, are not drafted: serve.drafter.kv_tokens holds no more",
            drafted,
        )


def _drafter_target(config: Config, target: Path, registry: str, cache: Path, name: str) -> ray_serve.RunTarget:
    wanted = fingerprint(load_tokenizer(target), load_config(target))
    app = build_drafter(wanted, registry, name, str(cache.resolve()), config.serve)
    return ray_serve.RunTarget(target=app, name=drafter_app_name(name), route_prefix=None)
