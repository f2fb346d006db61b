"""One round of improvement from captured prompts, on a run's folder and registry."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from cluster.run import Run
from common.models import fingerprint, load_config, load_tokenizer, mismatch
from common.registry import Registry
from common.settings import SettingsError
from common.storage import RegistryError
from train.traffic import Snapshot, Start, start_from

logger = logging.getLogger(__name__)


class Round:
    """A context manager, at whose end the prompts are let go. One that was interrupted goes on with the prompts that it
    began with.

    Args:
        data: fills {data} in the corpus sources.
        folder: of captured prompts.
        languages: only these; empty: all of the configuration.

    Raises CorpusError if there are no prompts, or broken ones; SettingsError if no language has enough of them;
    RegistryError if there is no drafter to begin with.
    """

    def __init__(
        self, run: Run, data: str, folder: str, languages: Collection[str] = (), *, force: bool = False
    ) -> None:
        self._snapshot = Snapshot(run.folder / "traffic")
        if self._snapshot.folder.exists():
            logger.info("%s: an interrupted run goes on with these prompts; without it, anew", self._snapshot.folder)
        with ExitStack() as unless_planned:
            unless_planned.callback(self._snapshot.forget)
            self._snapshot.take(Path(folder))
            files = self._chosen(run, languages or run.config.languages)
            starts = {language: _start(run, language, path) for language, path in files.items()}
            self.plan = run.traffic_plan(starts, data, force=force)
            unless_planned.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Unless something is left to be resumed, the next round takes what is captured by then."""
        if not self.plan.unfinished:
            self._snapshot.forget()

    def _chosen(self, run: Run, languages: Collection[str]) -> dict[str, Path]:
        """Files of prompts by language, where there are enough."""
        least = run.config.train.traffic.min_prompts
        files = {language: path for language, path in self._snapshot.files.items() if language in languages}
        counts = {language: path.read_bytes().count(b"\n") for language, path in files.items()}
        chosen = {language: files[language] for language, count in counts.items() if count >= least}
        if not chosen:
            found = ", ".join(f"{count} in {language}" for language, count in counts.items()) or "none"
            raise SettingsError(f"--from-traffic: train.traffic.min_prompts is {least}, there are {found}")
        for language in counts.keys() - chosen:
            logger.info("%s: %d captured prompts are too few, its drafter stays", language, counts[language])
        return chosen


def _start(run: Run, language: str, prompts: Path) -> Start:
    start = start_from(Registry(run.registry), language, prompts, run.folder / "published")
    problem = mismatch(fingerprint(load_tokenizer(run.target), load_config(run.target)), start.published.fingerprint)
    if problem is not None:
        raise RegistryError(f"{language}: {start.published.version} does not fit the target: {problem}")
    return start
