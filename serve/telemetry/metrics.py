"""What a router counts and measures; the names are in `metric_names`, the way to Prometheus in `instruments`.

    with metrics.text(request.language, len(request.prompt)) as text:
        async for progress in rounds:
            text.round_committed(progress)

A round costs about 2 µs here: it becomes a few numbers in `_Rounds`, from which `flush` makes all the counters.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from types import TracebackType

from common.types import Progress, SpeculationStats
from serve.errors import ServiceError
from serve.telemetry.instruments import Backend, Instruments
from serve.telemetry.metric_names import ROUTER_METRICS

OTHER = "other"
"""Label of a text whose language is not known, or not one of the server's."""

NO_DRAFTER = "none"
"""Label of rounds for which nobody drafts."""

_NOTHING = Progress(tokens=(), stats=SpeculationStats())


class _Rounds:
    """The rounds of one language and drafter that are not handed over yet."""

    def __init__(self) -> None:
        self.drafted: Counter[int] = Counter()
        """Rounds by the number of tokens drafted."""
        self.accepted: Counter[int] = Counter()
        """Rounds by the number of tokens accepted."""
        self.output_tokens = self.ahead_drafts = self.ahead_tokens = 0
        self.draft_s = self.verify_s = self.wire_s = 0.0

    def add(self, progress: Progress, before: Progress) -> None:
        stats, timings = progress.stats, progress.timings
        self.drafted[stats.drafted_tokens - before.stats.drafted_tokens] += 1
        self.accepted[stats.accepted_tokens - before.stats.accepted_tokens] += 1
        self.output_tokens += len(progress.tokens)
        self.ahead_drafts += stats.ahead_drafts - before.stats.ahead_drafts
        self.ahead_tokens += stats.ahead_tokens - before.stats.ahead_tokens
        self.draft_s += timings.draft_s - before.timings.draft_s
        self.verify_s += timings.verify_s - before.timings.verify_s
        self.wire_s += timings.wire_s - before.timings.wire_s

    def hand_over(self, instruments: Instruments, language: str, drafter: str) -> None:
        def add(name: str, value: float, *labels: str) -> None:
            instruments.add(f"polydraft_{name}", value, language, drafter, *labels)

        add("rounds", self.drafted.total())
        add("generation_tokens", self.output_tokens)
        add("spec_decode_num_drafts", self.drafted.total() - self.drafted[0])
        add("spec_decode_num_drafts_ahead", self.ahead_drafts)
        add("spec_decode_num_draft_tokens_ahead", self.ahead_tokens)
        for phase, seconds in (("draft", self.draft_s), ("verify", self.verify_s), ("wire", self.wire_s)):
            add("round_seconds", seconds, phase)
        for what, lengths in (("draft", self.drafted), ("accepted", self.accepted)):
            for length, rounds in lengths.items():
                add(f"spec_decode_num_{what}_tokens", length * rounds)
                for position in range(length):
                    add(f"spec_decode_num_{what}_tokens_per_pos", rounds, str(position))


class Metrics:
    """The numbers of one router.

    Args:
        backend: the module `ray.serve.metrics`.
        languages: those that become labels, later ones too; any other is told as `other`.
        clock: seconds, never going back.
    """

    def __init__(
        self, backend: Backend, languages: Collection[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.instruments = Instruments(backend, ROUTER_METRICS)
        self.clock = clock
        self.languages = languages
        self._rounds: defaultdict[tuple[str, str], _Rounds] = defaultdict(_Rounds)

    def text(self, language: str | None, prompt_tokens: int) -> TextMetrics:
        """One text: entered when it begins, left when it ends, however it ends."""
        label = OTHER if language is None or language not in self.languages else language
        return TextMetrics(self, label, prompt_tokens)

    def round_committed(self, language: str, progress: Progress, before: Progress) -> None:
        """Count what `progress` adds to `before`, the same text's progress a round earlier."""
        self._rounds[language, progress.drafter or NO_DRAFTER].add(progress, before)

    def flush(self) -> None:
        """Hand over to Ray what has come since the last time: call it every `instruments.FLUSH_EVERY_S`."""
        rounds, self._rounds = self._rounds, defaultdict(_Rounds)
        for (language, drafter), tally in rounds.items():
            tally.hand_over(self.instruments, language, drafter)
        self.instruments.flush()


class TextMetrics:
    """What one text tells. Made by `Metrics.text`."""

    def __init__(self, metrics: Metrics, language: str, prompt_tokens: int) -> None:
        self._metrics = metrics
        self._instruments = metrics.instruments
        self._language = language
        self._prompt_tokens = prompt_tokens
        self._latest = self._first = _NOTHING

    def __enter__(self) -> TextMetrics:
        self._began = self._latest_at = self._metrics.clock()
        self._instruments.shift("polydraft_num_requests_waiting", 1, self._language)
        self._instruments.add("polydraft_prompt_tokens", self._prompt_tokens, self._language)
        return self

    def round_committed(self, progress: Progress) -> None:
        """A round's tokens have come; `progress.stats` and `.timings` are sums over the text."""
        if not progress.tokens:  # it is about the prompt
            self._latest = progress
            return
        now = self._metrics.clock()
        if self._first is _NOTHING:
            self._first, self._first_at = progress, now
            self._instruments.shift("polydraft_num_requests_waiting", -1, self._language)
            self._instruments.shift("polydraft_num_requests_running", 1, self._language)
            self._observe("time_to_first_token_seconds", now - self._began)
        else:
            self._instruments.tally("polydraft_inter_token_latency_seconds", now - self._latest_at, self._language)
        self._metrics.round_committed(self._language, progress, self._latest)
        self._latest, self._latest_at = progress, now

    def replicas_lost(self, *, verifiers: int, drafters: int) -> None:
        """The text was replayed at so many other verifiers, and gave up so many drafter replicas."""
        self._instruments.add("polydraft_verifier_replays", verifiers, self._language)
        self._instruments.add("polydraft_drafter_losses", drafters, self._language)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stage = "waiting" if self._first is _NOTHING else "running"
        self._instruments.shift(f"polydraft_num_requests_{stage}", -1, self._language)
        answered = error is None or isinstance(error, GeneratorExit | asyncio.CancelledError)
        reason = self._latest.finish_reason or "closed" if answered else _status(error)
        self._instruments.add("polydraft_requests", 1, self._language, reason)
        if answered and stage == "running":
            self._observe_durations()

    def _observe_durations(self) -> None:
        self._observe("e2e_request_latency_seconds", self._latest_at - self._began)
        later_tokens = self._latest.stats.output_tokens - self._first.stats.output_tokens
        if later_tokens:
            writing_s = self._latest_at - self._first_at
            self._observe("request_time_per_output_token_seconds", writing_s / later_tokens)

    def _observe(self, name: str, seconds: float) -> None:
        self._instruments.observe(f"polydraft_{name}", seconds, self._language)


def _status(error: BaseException | None) -> str:
    return str(error.status if isinstance(error, ServiceError) else 500)
