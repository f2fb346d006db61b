"""What the demonstration of improvement asks, and when."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from cluster.bench import improvement
from cluster.bench.http_load import Endpoint, LoadResult, Question, Reply
from cluster.bench.improvement import PROMPTS, QUESTIONS, Client, traveller_questions
from cluster.config import load_config
from cluster.local_cluster import ClusterError
from cluster.run import make_run
from common.registry import Registry


def test_what_is_measured_is_never_learned_and_every_round_learns_other_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("quickstart", load_config("quickstart"), folder=str(tmp_path))
    learned: list[set[str]] = []
    for versions in (["v0001"], ["v0001", "v0002"]):
        monkeypatch.setattr(Registry, "versions", lambda *_, versions=versions: versions)
        asked, measured = traveller_questions(run, "de")
        assert (len(asked), len(measured)) == (PROMPTS, QUESTIONS)
        assert not {question.prompt for question in asked} & {question.prompt for question in measured}
        learned.append({question.prompt for question in asked})
    assert len(learned[0] | learned[1]) > 1.8 * PROMPTS
    kept = improvement.capturing(load_config("quickstart"), tmp_path / "captured").serve.capture
    assert kept is not None and kept.share == 1.0
    assert {question.store for question in improvement._unstored(measured)} == {False}


def test_a_question_that_is_not_answered_ends_the_demonstration() -> None:
    class Load:
        """Fails once."""

        def start(self, endpoint: Endpoint, questions: list[Question], streams: int, speculation: str) -> Any:
            replies = [Reply(started_s=0.0, error=None if number else "503: not ready") for number in range(2)]
            done: Future[LoadResult] = Future()
            done.set_result(LoadResult(replies=replies, seconds=1.0, cpu_seconds=1.0))
            return done

    client = Client(Load(), Endpoint(url="http://x/v1", model="m"), "de")  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match="503: not ready"):
        client.ask([])
