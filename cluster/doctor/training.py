"""What must be right before a configuration is trained, so that nothing is found missing hours later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec

from cluster.doctor.check import Check, Doubt
from cluster.run import Run
from common.registry import Registry
from common.settings import SettingsError
from train.initial import check_fit
from train.sources import HubSource, Source, fill, matching


def training_checks(run: Run, data: str) -> Iterator[Check]:
    """Of a run's text, models and folders; `data` fills {data} in the corpus sources."""
    recipe = run.config.train
    if run.given_target is not None or recipe.target is None:
        yield Check("--target", lambda: _target(run))
    checkpoint, target = recipe.initial.checkpoint, run.given_target
    if checkpoint is not None and target is not None:
        yield Check("train.initial.checkpoint", lambda: _fits(checkpoint, target))
    for part in ("train", "valid", "test", "decontaminate"):
        sources: tuple[Source, ...] = getattr(recipe.corpus, part)
        if sources:
            yield Check(f"train.corpus.{part}", partial(_sources, sources, run.config.languages, data))
    endpoint = recipe.distill.endpoint
    if endpoint is not None and endpoint.api_key_env is not None:
        yield Check("train.distill.endpoint.api_key_env", lambda: _variable(endpoint.api_key_env))
    yield Check("--run", lambda: _writable(run.folder))
    yield Check("--registry", lambda: f"{run.registry}: {len(Registry(run.registry).languages())} names")


def _target(run: Run) -> str:
    run.check()
    return str(run.target)


def _fits(checkpoint: str, target: Path) -> str:
    check_fit(checkpoint, target)
    return checkpoint


def _sources(sources: tuple[Source, ...], languages: tuple[str, ...], data: str) -> str:
    """Raises CorpusError or SettingsError naming every file that is not there."""
    files = [path for source in sources for language in languages for path in _files(source, language, data)]
    missing = [path for path in dict.fromkeys(files) if not _exists(path)]
    if missing:
        raise SettingsError(f"no such file: {', '.join(missing)}")
    if not files:
        raise Doubt("only datasets of the hub, which are not looked for here")
    return f"{len(set(files))} files"


def _files(source: Source, language: str, data: str) -> list[str]:
    return [] if isinstance(source, HubSource) else matching(fill(source, language, data))


def _exists(path: str) -> bool:
    filesystem, name = fsspec.url_to_fs(path)
    return bool(filesystem.exists(name))


def _variable(name: str | None) -> str:
    if name is not None and name not in os.environ:
        raise SettingsError(f"environment variable {name} is not set")
    return f"{name} is set"


def _writable(folder: Path) -> str:
    """The first folder upwards that exists decides."""
    existing = next(found for found in (folder, *folder.parents) if found.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise SettingsError(f"{folder}: {existing} cannot be written to")
    return str(folder)


def evaluation_checks(run: Run, data: str) -> Iterator[Check]:
    """Of what is measured; the embedded default makes its own text and models."""
    if run.config.train.target is None:
        yield Check("target", lambda: _trained(run), "run the job train first")
    for number, test_set in enumerate(run.config.lab.sets):
        languages = test_set.languages or run.config.languages
        yield Check(f"lab.sets[{number}]", partial(_sources, (test_set.source,), languages, data))
    yield Check("--run", lambda: _writable(run.folder))


def _trained(run: Run) -> str:
    run.check_trained()
    return str(run.target)
