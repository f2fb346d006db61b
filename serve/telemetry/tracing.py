"""OpenTelemetry spans: one for each text, below it the phases of its rounds.

    POST /v1/chat/completions        FastAPI's own; continues the trace of a `traceparent` header (W3C)
      └─ text                        totals as attributes: rounds, tokens, seconds by phase
           ├─ draft  wire  verify    first round
           ├─ draft  wire  verify    second round … as far as `TRACED_ROUNDS`

They go to the tracer provider of the process, whoever set it up: `configure_tracing`, Serve's `tracing_config`, or
`opentelemetry-instrument` with the OTEL_* variables. Without one a round costs a tenth of a microsecond.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Status, StatusCode

from common.settings import Settings, SettingsError
from common.types import GenerationRequest, Progress, SpeculationStats

TRACED_ROUNDS = 64
"""Rounds of a text that get spans of their own; the later ones are in its totals."""

_NOTHING = Progress(tokens=(), stats=SpeculationStats())
logger = logging.getLogger(__name__)


class TracingSettings(Settings, frozen=True, kw_only=True):
    """Where spans are sent; unset, it is left to whoever else sets up OpenTelemetry in the process."""

    endpoint: str | None = None
    """OTLP over HTTP, such as `http://collector:4318/v1/traces`."""
    sample_ratio: float = 1.0
    """Share of the requests that is traced, of those that come without a caller's own decision."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.sample_ratio <= 1.0:
            raise ValueError(f"sample_ratio must be between 0 and 1, not {self.sample_ratio}")


def configure_tracing(settings: TracingSettings) -> None:
    """Send this process's spans to `settings.endpoint`, if it is set and nobody else receives them.

    Raises SettingsError if the exporter is not installed.
    """
    if settings.endpoint is None:
        return
    exporter = make_exporter(settings.endpoint)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        logger.warning("tracing.endpoint is not used: tracing is set up in this process already")
        return
    resource = Resource.create({SERVICE_NAME: "polydraft"})
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(settings.sample_ratio), resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def make_exporter(endpoint: str) -> SpanExporter:
    """What sends spans to a collector. Raises SettingsError if it is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError("tracing.endpoint: needs the package opentelemetry-exporter-otlp-proto-http") from None
    return OTLPSpanExporter(endpoint=endpoint)


class TextSpan:
    """The span of one text: entered when it begins, left when it ends, however it ends.

    The phases' lengths are the measured ones. Where in its round a phase is drawn is a convention: draft, wire, verify,
    ending when the round was read.

    Args:
        clock: nanoseconds since the epoch.
    """

    def __init__(self, request: GenerationRequest, clock: Callable[[], int] = time.time_ns) -> None:
        self._request = request
        self._clock = clock
        self._tracer = trace.get_tracer("polydraft")
        self._latest = _NOTHING

    def __enter__(self) -> TextSpan:
        # Not made the current span: the rounds come from an async generator, which may be closed in another context.
        self._span = self._tracer.start_span("text", start_time=self._clock())
        self._recording = self._span.is_recording()
        self._context = trace.set_span_in_context(self._span)
        return self

    def round_committed(self, progress: Progress) -> None:
        """A round's tokens have come; `progress.stats` and `.timings` are sums over the text."""
        if self._recording:
            if progress.tokens and progress.stats.rounds <= TRACED_ROUNDS:  # without tokens it is about the prompt
                self._trace_round(progress, self._latest)
            self._latest = progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._recording:
            self._note_totals()
            if isinstance(error, Exception):
                self._span.record_exception(error)
                self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end(self._clock())

    def _trace_round(self, progress: Progress, before: Progress) -> None:
        spent, earlier, read = progress.timings, before.timings, self._clock()
        drafted = progress.stats.drafted_tokens - before.stats.drafted_tokens
        accepted = progress.stats.accepted_tokens - before.stats.accepted_tokens
        numbers = {"polydraft.round": progress.stats.rounds, "polydraft.drafted_tokens": drafted}
        verify = read - _ns(spent.verify_s - earlier.verify_s)
        wire = verify - _ns(spent.wire_s - earlier.wire_s)
        draft = wire - _ns(spent.draft_s - earlier.draft_s)
        if draft < wire:
            self._phase("draft", draft, wire, {**numbers, "polydraft.drafter": progress.drafter or ""})
        self._phase("wire", wire, verify, numbers)
        self._phase("verify", verify, read, {**numbers, "polydraft.accepted_tokens": accepted})

    def _phase(self, name: str, start_ns: int, end_ns: int, attributes: Mapping[str, int | str]) -> None:
        self._tracer.start_span(name, self._context, attributes=attributes, start_time=start_ns).end(end_ns)

    def _note_totals(self) -> None:
        stats, timings = self._latest.stats, self._latest.timings
        totals: dict[str, int | float | str] = {
            "polydraft.language": self._request.language or "",
            "polydraft.drafter": self._latest.drafter or "",
            "polydraft.finish_reason": self._latest.finish_reason or "",
            "polydraft.prompt_tokens": len(self._request.prompt),
            "polydraft.output_tokens": stats.output_tokens,
            "polydraft.rounds": stats.rounds,
            "polydraft.drafted_tokens": stats.drafted_tokens,
            "polydraft.accepted_tokens": stats.accepted_tokens,
            "polydraft.draft_s": timings.draft_s,
            "polydraft.verify_s": timings.verify_s,
            "polydraft.wire_s": timings.wire_s,
        }
        self._span.set_attributes(totals)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
