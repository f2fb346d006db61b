"""The service of a run as the study `http` wants it: up for a while, asked one question at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.bench.http_load import LoadGenerator, Question, Reply
from cluster.bench.service import serving
from cluster.deployment import usable_drafters
from cluster.run import Run
from train.evaluation.studies.http import Answered, Ask, Asked


@contextmanager
def asking(run: Run) -> Iterator[Ask]:
    """Raises SettingsError on a cluster where something is served already."""
    drafters = usable_drafters(run.config, run.target, run.registry)
    with serving(run, run.config, drafters) as endpoint, LoadGenerator() as load:

        def ask(asked: Asked, speculation: Any) -> Answered:
            question = Question(
                prompt=asked.prompt,
                language=asked.language,
                temperature=asked.temperature,
                seed=asked.seed,
                max_tokens=asked.max_tokens,
            )
            [reply] = load.start(endpoint, [question], 1, speculation=speculation).result().replies
            return _answered(reply)

        yield ask


def _answered(reply: Reply) -> Answered:
    first = reply.piece_times_s[0] if reply.piece_times_s else reply.ended_s
    return Answered(
        text=reply.text,
        tokens=reply.tokens,
        rounds=reply.rounds,
        first_s=first - reply.started_s,
        total_s=reply.ended_s - reply.started_s,
        error=reply.error,
    )
