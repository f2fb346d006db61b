"""What benchmarks of the whole service have in common: a deployment for themselves, and questions to ask it."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
from ray import serve as ray_serve
from rich.console import Console

from cluster.bench.http_load import Endpoint, Question
from cluster.config import Config
from cluster.deployment import deploy
from cluster.run import Run, start_ray
from common.languages import language_name
from common.settings import SettingsError
from serve.settings import ServeSettings
from train.corpus import read_test


def choose_languages(config: Config, wanted: str) -> tuple[str, ...]:
    """`wanted` is "all" or codes with commas between. Raises SettingsError naming one that is not configured."""
    if wanted == "all":
        return config.languages
    languages = tuple(dict.fromkeys(wanted.split(",")))
    for language in languages:
        if language not in config.languages:
            raise SettingsError(f"--languages: `{language}` is not among {', '.join(config.languages)}")
    return languages


def without_memory(settings: ServeSettings) -> ServeSettings:
    """For questions that are asked more than once: each time they are read anew, as other questions would be."""
    return msgspec.structs.replace(
        settings,
        verifier=msgspec.structs.replace(settings.verifier, prefix_caching=False),
        drafter=msgspec.structs.replace(settings.drafter, prefix_caching=False),
    )


@contextmanager
def serving(
    run: Run, config: Config, drafters: Collection[str], proxies: Literal["EveryNode", "HeadOnly"] = "EveryNode"
) -> Iterator[Endpoint]:
    """The service of `config` with the run's models, on a free port of this machine, as long as the context lasts.

    Raises SettingsError on a cluster where something is served already.
    """
    start_ray()
    if ray_serve.status().applications:
        raise SettingsError("RAY_ADDRESS: this cluster serves applications already; benchmarks need one of their own")
    serve = msgspec.structs.replace(config.serve, host="127.0.0.1", port=_free_port())
    try:
        with Console(stderr=True).status("starting target, drafters and router"):
            config = msgspec.structs.replace(config, serve=serve)
            deploy(config, run.target, run.registry, run.folder / "cache", drafters, proxies)
        yield Endpoint(url=f"http://{serve.host}:{serve.port}/v1", model=serve.model_name)
    finally:
        ray_serve.shutdown()


def make_questions(
    run: Run, data: str, languages: Sequence[str], count: int, temperatures: Sequence[float], *, longest: float = 1.0
) -> list[Question]:
    """Test sentences of all languages in turns, and within a language the temperatures in turns.

    `longest` is the share of a language's sentences that are asked about, the longest ones. Raises CorpusError.
    """
    recipe = run.config.train
    sentences = {language: _longest(_test_sentences(run, language, data), longest) for language in languages}
    questions = []
    for number in range(count):
        turn, place = divmod(number, len(languages))
        language = languages[place]
        source = sentences[language][turn % len(sentences[language])]
        questions.append(
            Question(
                prompt=recipe.prompt.format(language=language_name(language), source=source),
                language=language,
                temperature=temperatures[turn % len(temperatures)],
                seed=number,
                max_tokens=recipe.evaluate.max_tokens,
            )
        )
    return questions


def _test_sentences(run: Run, language: str, data: str) -> list[str]:
    return [pair.source for pair in read_test(run.config.train.corpus, language, data)]


def _longest(sentences: Sequence[str], share: float) -> list[str]:
    """In the order given."""
    shortest = sorted(map(len, sentences))[int((1.0 - share) * len(sentences))]
    return [sentence for sentence in sentences if len(sentence) >= shortest]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
