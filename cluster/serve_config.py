"""What `serve deploy` takes: the same applications that `polydraft serve` deploys, as plain data.

Each drafter is an application of its own, and router and verifier are told nothing of drafters, so deploying the file
again restarts what has changed and nothing else: a language that is added, a drafter's memory, its replicas.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import yaml

from cluster.config import Config
from cluster.deployment import http_options
from common.settings import Settings
from serve.app import drafter_app_name, user_config
from serve.handles import MAIN_APP, ROUTER

HEADER = "# For `serve deploy`; made by `polydraft serve-config`. Applications that are not in it are removed.\n"


class Places(Settings, frozen=True, kw_only=True):
    """Where things are, as the cluster's machines see them."""

    target: str
    """Folder of the model."""
    registry: str
    """Folder or URI."""
    cache: str
    """Folder for fetched drafters."""
    working_dir: str | None = None
    """URI of a package of our source; None where polydraft is installed."""


def serve_config(config: Config, places: Places, drafters: Collection[str]) -> dict[str, Any]:
    """`drafters`: the languages that have one, and the generalist."""
    return {
        "proxy_location": "EveryNode",
        "http_options": http_options(config.serve),
        "applications": [_main(config, places), *(_drafter(config, places, name) for name in drafters)],
    }


def as_yaml(made: dict[str, Any]) -> str:
    return HEADER + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)


def _main(config: Config, places: Places) -> dict[str, Any]:
    args = {"target": places.target, "serve": config.serve.of_main()}
    return {
        "name": MAIN_APP,
        "route_prefix": "/",
        "import_path": "serve.app:main",
        **_runtime_env(places),
        "args": args,
        "deployments": [{"name": ROUTER, "user_config": user_config(list(config.languages))}],
    }


def _drafter(config: Config, places: Places, language: str) -> dict[str, Any]:
    args = {
        "target": places.target,
        "registry": places.registry,
        "language": language,
        "cache": places.cache,
        "serve": config.serve.of_drafter(language),
    }
    return {
        "name": drafter_app_name(language),
        "route_prefix": None,
        "import_path": "serve.app:drafter",
        **_runtime_env(places),
        "args": args,
    }


def _runtime_env(places: Places) -> dict[str, Any]:
    return {} if places.working_dir is None else {"runtime_env": {"working_dir": places.working_dir}}
