"""`polydraft quickstart`: the whole system on one machine, from nothing but a package registry."""

from __future__ import annotations

import signal
import socket
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from cluster.ask import Comparison, compare
from cluster.config import Config, load_config
from cluster.deployment import deploy, usable_drafters
from cluster.run import Run, make_run, start_ray
from common.languages import language_name
from common.settings import SettingsError
from train.corpus import read_part
from train.pair import Pair
from train.phrasebook.generate import FRAMES, Frames, pairs
from train.pipeline import Pipeline

CONFIG = "quickstart"
PAIRS = 21_500
console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def main(folder: str, *, once: bool) -> None:
    """Train what is missing, serve, ask, show. Raises PipelineError, SettingsError."""
    started = time.monotonic()
    run = make_run(CONFIG, load_config(CONFIG), folder=folder)
    _check_port(run.config)
    train_default(run)
    drafters = usable_drafters(run.config, run.target, run.registry)
    with console.status("starting target, drafters and router"):
        deploy(run.config, run.target, run.registry, run.folder / "cache", drafters)
    answers = {language: _ask(run, language) for language in run.config.languages}
    _show(answers)
    _report(answers, time.monotonic() - started)
    if not once:
        _stay_up(run, answers)


def train_default(run: Run) -> str:
    """The embedded default's corpus, target and drafters; nothing is done twice. Returns the corpus's folder."""
    text = run.folder / "phrasebook"
    write_phrasebook(text, run.config.languages)
    start_ray()
    Pipeline(run.plan(str(text)).steps).run()
    return str(text)


def write_phrasebook(folder: Path, languages: tuple[str, ...], count: int = PAIRS, frames: Frames = FRAMES) -> None:
    """One ``source<TAB>english`` file a language, as users have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in languages:
        path = folder / f"{language}.tsv"
        if not path.exists():
            lines = "".join(f"{source}\t{english}\n" for source, english in pairs(language, count, frames=frames))
            path.write_text(lines, encoding="utf8")


def _ask(run: Run, language: str) -> Comparison:
    """One held-out question, with and without speculation."""
    question = _question(run, language)
    content = run.config.train.prompt.format(language=language_name(language), source=question.source).rstrip("\n")
    url = f"http://{run.config.serve.host}:{run.config.serve.port}/v1"
    return compare(url, run.config.serve.model_name, language, content)


def _question(run: Run, language: str) -> Pair:
    """The longest English among the first held-out sentences: the more rounds, the less the clock's noise counts."""
    questions = islice(read_part(run.folder / language / "corpus", "test"), 100)
    return max(questions, key=lambda pair: len(pair.english))


def _show(answers: dict[str, Comparison]) -> None:
    table = Table("language", "question", "text", "tokens per verification", "tokens/s", "plain tokens/s", "equal text")
    for language, a in answers.items():
        table.add_row(
            language,
            a.question.partition(":")[2],
            a.text,
            f"{a.mean_acceptance_length:.2f}",
            f"{a.tokens_per_second:.0f}",
            f"{a.plain_tokens_per_second:.0f}",
            "yes" if a.equal else "NO",
        )
    console.print(table)


def _report(answers: dict[str, Comparison], elapsed_s: float) -> None:
    figures: dict[str, Any] = {
        language: {
            "mean_acceptance_length": round(a.mean_acceptance_length, 3),
            "tokens_per_second": round(a.tokens_per_second, 1),
            "plain_tokens_per_second": round(a.plain_tokens_per_second, 1),
            "equal": a.equal,
        }
        for language, a in answers.items()
    }
    report = {"languages": figures, "elapsed_s": round(elapsed_s, 1)}
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


def _stay_up(run: Run, answers: dict[str, Comparison]) -> None:
    question = next(iter(answers.values())).question
    body = {"model": run.config.serve.model_name, "messages": [{"role": "user", "content": question}], "temperature": 0}
    click.echo(
        f"\nStill serving; Ctrl-C ends it. Try:\n\n"
        f"curl -N http://{run.config.serve.host}:{run.config.serve.port}/v1/chat/completions "
        f"-H 'Content-Type: application/json' -d '{msgspec.json.encode(body | {'stream': True}).decode()}'\n",
        err=True,
    )
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _check_port(config: Config) -> None:
    """Found out now, not after the training."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.serve.host, config.serve.port))
        except OSError as error:
            raise SettingsError(f"serve.port: {config.serve.host}:{config.serve.port}: {error.strerror}") from None
