"""`polydraft rehearse`: what an operator does on a cluster, on one of this machine's own, in two minutes.

ray start --head          token authentication on
ray job submit            the training job
polydraft serve-config    the file
serve deploy              router and verifier, and each language's drafter
a request                 the same text with and without speculation
polydraft drafters promote    another version, while texts are written
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from openai import APIError, OpenAI
from rich.console import Console

from cluster.bench.faults import Figures, compare
from cluster.bench.http_load import Endpoint, LoadGenerator
from cluster.bench.service import make_questions
from cluster.config import load_config
from cluster.local_cluster import ClusterError, LocalCluster, free_port
from cluster.quickstart import write_phrasebook
from cluster.run import Run, make_run
from common.registry import Registry

CONFIG = "rehearsal"
PAIRS = 400
CPUS = 4
STREAMS = 4
QUESTIONS = 12
AFTERWARDS = 20
"""Answers after the promotion, one after another, for which the load goes on."""
TEMPERATURES = (0.0, 0.7)
UP_WITHIN_S = 90.0
PROMOTED_WITHIN_S = 30.0
POLL_S = 0.2
console = Console(stderr=True)


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    equal: bool
    """Whether the request got the same text with and without speculation."""
    promoted: str
    """The drafter that wrote after the promotion, ``de/v0002``."""
    texts: int
    """Written while it was promoted."""
    failed: int
    unequal: int
    seconds: dict[str, float]
    """Of each step."""


def main(folder: str) -> Rehearsed:
    """Raises ClusterError if a command fails, or what was deployed or promoted does not come up."""
    config = load_config(CONFIG, (f"serve.port={free_port()}",))
    run, seconds = make_run(CONFIG, config, folder=folder), dict[str, float]()
    data = run.folder / "phrasebook"
    write_phrasebook(data, config.languages, PAIRS)
    with ExitStack() as stack:
        with _step("ray start", seconds):
            cluster = stack.enter_context(LocalCluster(num_cpus=CPUS))
        _train(cluster, run, data, seconds)
        _deploy(cluster, run, seconds)
        client = Client(run)
        with _step("request", seconds):
            equal = client.ask("auto")[0] == client.ask("off")[0]
        with _step("promotion", seconds):
            promoted, figures = _promote(cluster, run, data, client)
    return Rehearsed(
        equal=equal,
        promoted=promoted,
        texts=figures.texts,
        failed=figures.failed,
        unequal=figures.unequal,
        seconds=seconds,
    )


class Client:
    """Asks one question, in the first language."""

    def __init__(self, run: Run) -> None:
        serve, self._language = run.config.serve, run.config.languages[0]
        self._model = serve.model_name
        self._openai = OpenAI(base_url=f"http://{serve.host}:{serve.port}/v1", api_key="unused", max_retries=0)

    def ask(self, speculation: str) -> tuple[str, str | None]:
        """The text, and which drafter helped to write it."""
        answer = self._openai.completions.create(
            model=self._model,
            prompt="Translate German to English:Das Haus ist klein.\n",
            max_tokens=16,
            seed=1,
            extra_body={"language": self._language, "speculation": speculation},
        )
        return answer.choices[0].text, answer.model_extra["polydraft"]["drafter"] if answer.model_extra else None

    def drafter(self) -> str | None:
        """Which one is at work; None if there is no answer yet."""
        try:
            return self.ask("auto")[1]
        except APIError:
            return None


def _train(cluster: LocalCluster, run: Run, data: Path, seconds: dict[str, float]) -> None:
    with _step("ray job submit", seconds):
        job = ["python", "-m", "cluster.jobs.train", "--config", CONFIG, "--run", str(run.folder), "--data", str(data)]
        cluster.run("ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--", *job)


def _deploy(cluster: LocalCluster, run: Run, seconds: dict[str, float]) -> None:
    file = run.folder / "serve.yaml"
    with _step("serve deploy", seconds):
        port = f"serve.port={run.config.serve.port}"
        made = ["--config", CONFIG, "--run", str(run.folder), "--set", port, "--output", str(file)]
        cluster.run("python", "-m", "cluster.cli", "serve-config", *made)
        cluster.run("serve", "deploy", str(file), "--address", cluster.dashboard)
        until(lambda: _running(cluster), UP_WITHIN_S, "applications that run")


def _running(cluster: LocalCluster) -> bool:
    """Raises ClusterError if an application cannot be deployed."""
    applications = cluster.get("/api/serve/applications/")["applications"]
    for name, found in applications.items():
        if found["status"] == "DEPLOY_FAILED":
            raise ClusterError(f"{name}: {found['message']}")
    return bool(applications) and all(found["status"] == "RUNNING" for found in applications.values())


def _promote(cluster: LocalCluster, run: Run, data: Path, client: Client) -> tuple[str, Figures]:
    """A second version of the first language's drafter, while the questions are asked over and over."""
    language = run.config.languages[0]
    until(lambda: client.drafter() == f"{language}/v0001", UP_WITHIN_S, "the first version")
    version = _publish_again(run, language)
    questions = make_questions(run, str(data), run.config.languages, QUESTIONS, TEMPERATURES)
    serve = run.config.serve
    endpoint = Endpoint(url=f"http://{serve.host}:{serve.port}/v1", model=serve.model_name)
    with LoadGenerator() as load:
        undisturbed = load.start(endpoint, questions, STREAMS).result()
        writing = load.start(endpoint, questions, STREAMS, repeat=True)
        try:
            cluster.run(
                *("python", "-m", "cluster.cli", "drafters", "promote", language, version, "--registry", run.registry)
            )
            promoted = f"{language}/{version}"
            until(lambda: client.drafter() == promoted, PROMOTED_WITHIN_S, f"{promoted} at work")
            for _ in range(AFTERWARDS):
                client.ask("auto")
        finally:
            load.stop()
        disturbed = writing.result()
    return promoted, compare(undisturbed.replies, disturbed.replies, kills=0, leaked=0)


def _publish_again(run: Run, language: str) -> str:
    """The current version as another one, not promoted yet."""
    registry = Registry(run.registry)
    current = registry.current(language)
    assert current is not None
    folder = registry.fetch(current, run.folder / "again")
    facts = {name: getattr(current, name) for name in ("target", "fingerprint", "metrics", "provenance")}
    return registry.publish(language, folder, **facts).version


def until(look: Callable[[], bool], within_s: float, what: str) -> None:
    """Raises ClusterError."""
    deadline = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {within_s:g} s for {what}")
        time.sleep(POLL_S)


@contextmanager
def _step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    console.rule(name, align="left")
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 1)


def report(found: Rehearsed) -> None:
    """The last line of standard output."""
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
