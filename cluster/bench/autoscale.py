"""How drafters follow a load that moves from one language to the next: replicas and texts in progress over time.

    phases     idle | first language | … | last language | idle until its drafters are gone
    drafters   none at first; started by the first text that wants one, which does not wait for it

Delays are shorter than a service would have them, so that a run takes minutes: see `PACE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec
from ray import serve as ray_serve

from cluster.bench.http_load import Endpoint, LoadGenerator, Question, Reply
from cluster.bench.report import report
from cluster.bench.service import choose_languages, make_questions, serving
from cluster.config import Config
from cluster.deployment import usable_drafters
from cluster.run import Run
from common.settings import SettingsError
from serve.app import drafter_app_name
from serve.autoscaling import AutoscalingSettings
from serve.handles import DRAFTER

PACE = AutoscalingSettings(
    min_replicas=0,
    max_replicas=2,
    target_sessions=2,
    upscale_delay_s=1,
    downscale_delay_s=6,
    downscale_to_zero_delay_s=12,
)
STREAMS = 4
"""In each language's phase: PACE.max_replicas times its target."""
HOLD_S = 5.0
"""How long a language is asked for after its drafters are all there and the others' are gone."""
QUESTIONS = 100
"""Of each language; asked over and over."""
SAMPLE_S = 0.5
ROW_S = 5.0
"""Time between the table's rows."""
LAST_WAIT_S = 90.0
"""How long the last language's drafters may take to go."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas at one moment, by language."""

    seconds: float
    """Since the recording began."""
    running: dict[str, int]
    starting: dict[str, int]

    @property
    def empty(self) -> bool:
        return not any(self.running.values()) and not any(self.starting.values())

    def settled(self, language: str) -> bool:
        """Whether this language has all drafters that it can get, and the others have none."""
        wanted = {other: PACE.max_replicas if other == language else 0 for other in self.running}
        return self.running == wanted


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """When a language was asked for, in seconds since the recording began."""

    start_s: float
    end_s: float


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """What a language's drafters did. Seconds after the load began or ended; None for what did not happen."""

    peak_replicas: int
    first_replica_s: float | None
    scale_up_s: float | None
    """From the load's beginning until all replicas that it got were running."""
    scale_down_s: float | None
    """From the load's end until the first of them was given up."""
    to_zero_s: float | None
    scaled_to_zero: bool


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    samples: list[Sample]
    phases: dict[str, Phase]
    replies: list[Reply]
    started_s: float
    """Monotonic time."""

    def in_flight(self, seconds: float) -> int:
        """Texts in progress at that time."""
        now = self.started_s + seconds
        return sum(reply.started_s <= now < reply.ended_s for reply in self.replies)


def main(run: Run, data: str, languages: str, seconds: float, png: Path) -> None:
    """Deploy, move the load, report; `seconds` is the longest that a language is waited for."""
    from cluster.bench.plot import plot_recording  # here: matplotlib takes seconds to import

    chosen = choose_languages(run.config, languages)
    if len(chosen) < 2:
        raise SettingsError("--languages: a load can only move between two languages or more")
    config = autoscaled(run.config, chosen)
    usable = usable_drafters(config, run.target, run.registry)
    for language in chosen:
        if language not in usable:
            raise SettingsError(f"--languages: no drafter for `{language}` that fits the target is published")
    questions = make_questions(run, data, chosen, QUESTIONS * len(chosen), [0.0, 1.0])
    with serving(run, config, chosen) as endpoint, LoadGenerator() as load:
        recorder = Recorder(load, endpoint, chosen)
        for language in chosen:
            recorder.ask(language, [q for q in questions if q.language == language], seconds)
        recorder.watch(lambda sample: sample.empty, LAST_WAIT_S)
    recording = recorder.recording
    scalings = {language: measure(recording, language) for language in chosen}
    plot_recording(recording, png)
    report(
        "drafter replicas running (and starting) while the load moves",
        ["s", "texts in progress", *chosen],
        _rows(recording, chosen),
        {
            "languages": msgspec.to_builtins(scalings),
            "requests": len(recording.replies),
            "failed": sum(reply.error is not None for reply in recording.replies),
            "png": str(png),
            "pace": msgspec.to_builtins(PACE),
        },
    )


def autoscaled(config: Config, languages: tuple[str, ...]) -> Config:
    """`config` for these languages, their drafters scaled by PACE."""
    drafter = msgspec.structs.replace(config.serve.drafter, autoscaling=PACE)
    serve = msgspec.structs.replace(config.serve, drafter=drafter)
    return msgspec.structs.replace(config, languages=languages, serve=serve)


class Recorder:
    """Makes the load and looks at the replicas meanwhile."""

    def __init__(self, load: LoadGenerator, endpoint: Endpoint, languages: Sequence[str]) -> None:
        self._load, self._endpoint, self._languages = load, endpoint, languages
        self.recording = Recording(samples=[], phases={}, replies=[], started_s=time.monotonic())

    def ask(self, language: str, questions: Sequence[Question], longest_s: float) -> None:
        """One language's phase."""
        asking = self._load.start(self._endpoint, questions, STREAMS, repeat=True)
        self.watch(lambda sample: sample.settled(language) or asking.done(), longest_s)
        self.watch(lambda _: asking.done(), HOLD_S)
        self._load.stop()
        replies, zero_s = asking.result().replies, self.recording.started_s
        self.recording.replies.extend(replies)
        self.recording.phases[language] = Phase(
            start_s=min(reply.started_s for reply in replies) - zero_s,
            end_s=max(reply.ended_s for reply in replies) - zero_s,
        )

    def watch(self, until: Callable[[Sample], bool], longest_s: float) -> None:
        """Look again and again."""
        deadline_s = time.monotonic() + longest_s
        while not until(self._sample()) and time.monotonic() < deadline_s:
            time.sleep(SAMPLE_S)

    def _sample(self) -> Sample:
        applications = ray_serve.status().applications
        states = {
            language: applications[drafter_app_name(language)].deployments[DRAFTER].replica_states
            for language in self._languages
        }
        sample = Sample(
            seconds=time.monotonic() - self.recording.started_s,
            running={language: state.get("RUNNING", 0) for language, state in states.items()},
            starting={language: state.get("STARTING", 0) for language, state in states.items()},
        )
        self.recording.samples.append(sample)
        return sample


def measure(recording: Recording, language: str) -> Scaling:
    """What the samples say of one language's drafters."""
    phase, samples = recording.phases[language], recording.samples
    peak = max(sample.running[language] for sample in samples)

    def after(moment_s: float, counts: Collection[int]) -> float | None:
        """How long after that moment the replicas were first as many as one of `counts`."""
        found = (s.seconds for s in samples if s.seconds >= moment_s and s.running[language] in counts)
        reached = next(found, None)
        return None if reached is None else round(reached - moment_s, 2)

    to_zero = after(phase.end_s, [0]) if peak else None
    return Scaling(
        peak_replicas=peak,
        first_replica_s=after(phase.start_s, range(1, peak + 1)),
        scale_up_s=after(phase.start_s, [peak]) if peak else None,
        scale_down_s=after(phase.end_s, range(peak)),
        to_zero_s=to_zero,
        scaled_to_zero=to_zero is not None,
    )


def _rows(recording: Recording, languages: Sequence[str]) -> list[list[str]]:
    """The last sample before each full row's time."""
    by_row = {int(sample.seconds / ROW_S): sample for sample in recording.samples}
    return [
        [
            f"{sample.seconds:.0f}",
            str(recording.in_flight(sample.seconds)),
            *(_count(sample.running[language], sample.starting[language]) for language in languages),
        ]
        for sample in by_row.values()
    ]


def _count(running: int, starting: int) -> str:
    return f"{running} (+{starting})" if starting else str(running)
