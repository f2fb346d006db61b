"""A command made into a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from cluster.doctor.check import Check, require
from cluster.options import data_and_run_of
from cluster.run import Run
from common.settings import SettingsError

Checks = Callable[[Run, str], Iterable[Check]]
"""Of a run and its data: what must be right before the command begins."""
PATHS = {
    "--run": "run_folder",
    "--data": "data",
    "--target": "target",
    "--registry": "registry",
    "--from-traffic": "traffic",
}


def as_job(command: click.Command, checks: Checks, **fixed: Any) -> click.Command:
    """`command` with the options of `fixed` decided, and everything that it needs looked for before it begins."""

    def checked(**options: Any) -> None:
        _require_shared(options)
        data, run = data_and_run_of(options)
        require(checks(run, data), options["config_name"])
        assert command.callback is not None
        command.callback(**options, **fixed)

    params = [param for param in command.params if param.name not in fixed]
    return click.Command(command.name, callback=checked, params=params, help=command.help)


def _require_shared(options: dict[str, Any]) -> None:
    """A job's working directory is a copy of its package on one machine, gone when the job is."""
    for option, name in PATHS.items():
        path = options.get(name) or ""
        if option == "--run" and not path:
            raise SettingsError("--run: name a folder on storage that every machine of the cluster sees")
        if path and "://" not in path and not Path(path).is_absolute():
            raise SettingsError(f"{option} {path}: must be an absolute path, or a URI, that every machine sees")
