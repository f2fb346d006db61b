"""A round of continuous improvement on the embedded default, whose drafter meets a domain that it was not trained for.

target              trained on the whole phrasebook of one language
drafter             on all of it but what travellers say
served              with capture: travellers ask
--from-traffic      the drafter learns from what was captured, and is promoted if it is certainly better
served              the replica takes the new version over

Acceptance is measured by the server, before and after, on travellers' sentences that were neither captured nor trained
on, and on the test text.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.bench.http_load import Endpoint, LoadGenerator, Question, Reply
from cluster.bench.report import report
from cluster.bench.service import make_questions, serving
from cluster.config import Config, load_config
from cluster.deployment import usable_drafters
from cluster.local_cluster import ClusterError
from cluster.quickstart import CONFIG, write_phrasebook
from cluster.rehearsal import until
from cluster.run import Run, make_run, start_ray
from cluster.traffic import Round
from common.languages import language_name
from common.registry import Registry
from common.types import SpeculationStats
from serve.capture.settings import CaptureSettings
from train.evaluation.improvement import Compared, compare
from train.phrasebook.generate import EVERYDAY, TRAVEL, pairs
from train.pipeline import Pipeline
from train.results import verdicts
from train.selection import until as steps_until
from train.traffic import read_traffic
from train.traffic_tasks import Verdict

PROMPTS = 800
"""That travellers ask while prompts are captured."""
QUESTIONS = 120
"""Of either kind, to measure by."""
STREAMS = 8
"""Of the traffic; what is measured is asked one by one, so that drafts are seldom late even where cores are shared."""
WRITTEN_WITHIN_S = 10.0
TAKEN_OVER_WITHIN_S = 60.0
Measured = tuple[list[SpeculationStats], list[SpeculationStats]]
"""Of travellers' questions and of ordinary ones."""


def main(folder: str, language: str, target: str | None) -> None:
    """Raises SettingsError, PipelineError, and ClusterError if what should happen does not."""
    run, data = trained(Path(folder), language, target)
    config = capturing(run.config, run.folder / "captured")
    asked, travel = traveller_questions(run, language)
    measured = [_unstored(travel), _unstored(make_questions(run, data, [language], QUESTIONS, [0.0]))]
    shutil.rmtree(run.folder / "captured", ignore_errors=True)
    drafters = usable_drafters(config, run.target, run.registry)
    with serving(run, config, drafters) as endpoint, LoadGenerator() as load:
        client = Client(load, endpoint, language)
        before = client.measure(measured)
        client.ask(asked, STREAMS)
        until(lambda: captured(run) >= PROMPTS, WRITTEN_WITHIN_S, "the captured prompts")
        verdict = improve(run, data, language)
        if verdict.promoted is not None:
            until(lambda: client.drafter() == f"{language}/{verdict.promoted}", TAKEN_OVER_WITHIN_S, "the new version")
        after = client.measure(measured)
    show(compare(before[0], after[0]), compare(before[1], after[1]), verdict)


class Client:
    """Asks, always with drafts of the language's own drafter."""

    def __init__(self, load: LoadGenerator, endpoint: Endpoint, language: str) -> None:
        self._load, self._endpoint, self._language = load, endpoint, language

    def ask(self, questions: Sequence[Question], streams: int = 1) -> list[Reply]:
        """Raises ClusterError if one is not answered."""
        asked = self._load.start(self._endpoint, questions, streams, speculation=self._language)
        replies = asked.result().replies
        failed = next((reply.error for reply in replies if reply.error), None)
        if failed is not None:
            raise ClusterError(f"a question was not answered: {failed}")
        return replies

    def measure(self, questions: Sequence[Sequence[Question]]) -> Measured:
        travel, ordinary = (list(map(_stats, self.ask(kind))) for kind in questions)
        return travel, ordinary

    def drafter(self) -> str | None:
        """Which one is at work."""
        probe = Question(prompt="Probe", language=self._language, temperature=0, seed=0, max_tokens=8, store=False)
        return self.ask([probe])[0].drafter


def trained(folder: Path, language: str, target: str | None) -> tuple[Run, str]:
    """The run of the drafter that knows no travellers, and the folder of its text; nothing is done twice.

    The target is one that knows all of the phrasebook; None makes one, for the one language.
    """
    config = load_config(CONFIG, (f"languages=[{language}]",))
    start_ray()
    run = make_run(CONFIG, config, folder=str(folder), target=target or str(_train_target(config, folder / "knowing")))
    run.check()
    data = run.folder / "phrasebook"
    write_phrasebook(data, config.languages, frames=EVERYDAY)
    Pipeline(run.plan(str(data)).steps).run()
    return run, str(data)


def _train_target(config: Config, folder: Path) -> Path:
    run = make_run(CONFIG, config, folder=str(folder))
    write_phrasebook(run.folder / "phrasebook", config.languages)
    Pipeline(steps_until(run.plan(str(run.folder / "phrasebook")).steps, "target")).run()
    return run.target


def capturing(config: Config, folder: Path) -> Config:
    """Every prompt is kept whose client does not object."""
    capture = CaptureSettings(folder=str(folder), share=1.0)
    serve = msgspec.structs.replace(config.serve, capture=capture, promotion_poll_s=1.0)
    return msgspec.structs.replace(config, serve=serve)


def traveller_questions(run: Run, language: str) -> tuple[list[Question], list[Question]]:
    """PROMPTS to learn from, others for every version that is there, and QUESTIONS to measure by, always the same."""
    measured = [source for source, _ in pairs(language, QUESTIONS, frames=TRAVEL)]
    seed = len(Registry(run.registry).versions(language))
    drawn = [source for source, _ in pairs(language, PROMPTS + QUESTIONS, seed=seed, frames=TRAVEL)]
    asked = [sentence for sentence in drawn if sentence not in measured]
    return _questions(run, language, asked[:PROMPTS]), _questions(run, language, measured)


def _questions(run: Run, language: str, sentences: Sequence[str]) -> list[Question]:
    recipe = run.config.train
    return [
        Question(
            prompt=recipe.prompt.format(language=language_name(language), source=sentence),
            language=language,
            temperature=0.0,
            seed=number,
            max_tokens=recipe.evaluate.max_tokens,
        )
        for number, sentence in enumerate(sentences)
    ]


def captured(run: Run) -> int:
    return sum(1 for _ in read_traffic(run.folder / "captured"))


def improve(run: Run, data: str, language: str) -> Verdict:
    """What `polydraft train --from-traffic` does."""
    with Round(run, data, str(run.folder / "captured")) as served:
        Pipeline(served.plan.improvements).run()
    return verdicts(served.plan.improvements.values())[language]


def show(travel: Compared, ordinary: Compared, verdict: Verdict) -> None:
    rows = [
        ["travellers, as served", *_cells(travel)],
        ["test text, as served", *_cells(ordinary)],
        ["held-out traffic, by the gate", *_cells(verdict.traffic)],
        ["test text, by the gate", *_cells(verdict.ordinary)],
    ]
    decided = f"{verdict.promoted} is promoted" if verdict.promoted else f"not promoted: {verdict.why_not}"
    columns = ["tokens per verification", "prompts", f"before ({verdict.start})", "after", "difference"]
    figures: dict[str, Any] = {
        "before": travel.before,
        "after": travel.after,
        "difference": travel.difference,
        "promoted": verdict.promoted is not None,
        "ordinary_before": ordinary.before,
        "ordinary_after": ordinary.after,
        "ordinary_difference": ordinary.difference,
        "gate": verdict,
    }
    report(f"a drafter that learns from traffic: {decided}", columns, rows, msgspec.to_builtins(figures))


def _cells(found: Compared) -> list[str]:
    return [str(found.prompts), str(found.before), str(found.after), str(found.difference)]


def _unstored(questions: Sequence[Question]) -> list[Question]:
    return [msgspec.structs.replace(question, store=False) for question in questions]


def _stats(reply: Reply) -> SpeculationStats:
    return SpeculationStats(rounds=reply.rounds, output_tokens=reply.tokens)
