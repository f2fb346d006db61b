from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBasedTraceIdRatio, Sampler

from common.settings import SettingsError, convert
from common.types import GenerationRequest, Progress, SamplingParams, SpeculationStats, Timings
from serve.errors import ServiceUnavailable
from serve.telemetry.tracing import TRACED_ROUNDS, TextSpan, TracingSettings, configure_tracing

MS = 1_000_000
REQUEST = GenerationRequest(prompt=(1, 2, 3), max_tokens=9, sampling=SamplingParams(), language="de")


class Clock:
    now_ns = 10_000 * MS

    def __call__(self) -> int:
        return self.now_ns


def traced(monkeypatch: pytest.MonkeyPatch, sampler: Sampler | None = None) -> InMemorySpanExporter:
    """The spans of one test: the process's tracer provider can be set only once."""
    spans, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return spans


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    return traced(monkeypatch)


def rounds(count: int, *, draft_s: float = 0.002) -> Iterator[Progress]:
    stats, timings = SpeculationStats(), Timings()
    for number in range(1, count + 1):
        stats += SpeculationStats(rounds=1, drafted_tokens=4, accepted_tokens=2, output_tokens=3)
        timings += Timings(draft_s=draft_s, verify_s=0.005, wire_s=0.001)
        reason = "length" if number == count else None
        yield Progress(tokens=(7, 8, 9), stats=stats, timings=timings, drafter="de/v1", finish_reason=reason)


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def extent(span: ReadableSpan) -> tuple[float, float]:
    """Milliseconds."""
    assert span.start_time is not None and span.end_time is not None
    return span.start_time / MS, span.end_time / MS


def test_a_text_is_a_span_with_totals_and_its_phases_below(spans: InMemorySpanExporter) -> None:
    clock = Clock()
    with TextSpan(REQUEST, clock) as span:
        for progress in rounds(2):
            clock.now_ns += 10 * MS
            span.round_committed(progress)
    [text] = named(spans, "text")
    told = dict(text.attributes or {})
    assert extent(text) == (10_000, 10_020)
    assert told["polydraft.language"] == "de"
    assert told["polydraft.finish_reason"] == "length"
    assert (told["polydraft.prompt_tokens"], told["polydraft.output_tokens"], told["polydraft.rounds"]) == (3, 6, 2)
    assert told["polydraft.verify_s"] == pytest.approx(0.010)
    first, second = zip(*(named(spans, phase) for phase in ("draft", "wire", "verify")), strict=True)
    assert [extent(span) for span in first] == [(10_002, 10_004), (10_004, 10_005), (10_005, 10_010)]
    assert [extent(span) for span in second] == [(10_012, 10_014), (10_014, 10_015), (10_015, 10_020)]
    assert {span.parent.span_id for span in first if span.parent} == {text.context.span_id}
    assert dict(second[2].attributes or {}) == {
        "polydraft.round": 2,
        "polydraft.drafted_tokens": 4,
        "polydraft.accepted_tokens": 2,
    }


def test_a_round_without_a_draft_has_no_such_phase(spans: InMemorySpanExporter) -> None:
    with TextSpan(REQUEST) as span:
        for progress in rounds(1, draft_s=0.0):
            span.round_committed(progress)
    assert [span.name for span in spans.get_finished_spans()] == ["wire", "verify", "text"]


def test_spans_of_a_long_text_are_bounded_its_totals_are_not(spans: InMemorySpanExporter) -> None:
    with TextSpan(REQUEST) as span:
        for progress in rounds(TRACED_ROUNDS + 50):
            span.round_committed(progress)
    assert len(spans.get_finished_spans()) == 3 * TRACED_ROUNDS + 1
    assert (named(spans, "text")[0].attributes or {})["polydraft.rounds"] == TRACED_ROUNDS + 50


def test_what_is_told_of_a_prompt_is_no_round(spans: InMemorySpanExporter) -> None:
    with TextSpan(REQUEST) as span:
        span.round_committed(Progress(tokens=(), stats=SpeculationStats(), finish_reason="length"))
    [text] = spans.get_finished_spans()
    assert (text.attributes or {})["polydraft.finish_reason"] == "length"


def test_a_text_that_fails_says_so(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ServiceUnavailable), TextSpan(REQUEST):
        raise ServiceUnavailable("no verifier")
    [text] = named(spans, "text")
    assert not text.status.is_ok
    assert text.events[0].name == "exception"


def test_a_text_that_is_closed_early_is_no_error(spans: InMemorySpanExporter) -> None:
    with pytest.raises(GeneratorExit), TextSpan(REQUEST):
        raise GeneratorExit
    assert named(spans, "text")[0].status.status_code is trace.StatusCode.UNSET


def test_an_unsampled_text_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = traced(monkeypatch, ALWAYS_OFF)
    with TextSpan(REQUEST) as span:
        for progress in rounds(3):
            span.round_committed(progress)
    assert not spans.get_finished_spans()


CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{sampled}"


async def ask(traceparent: str) -> None:
    app = FastAPI()

    @app.get("/texts/{name}")
    async def answer(name: str) -> str:
        with TextSpan(REQUEST):
            return name

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/texts/a", headers={"traceparent": traceparent})).status_code == 200


async def test_a_text_belongs_to_the_callers_trace(spans: InMemorySpanExporter) -> None:
    await ask(CALLER.format(sampled="01"))
    by_id = {span.context.span_id: span for span in spans.get_finished_spans()}
    [request], [text] = named(spans, "GET /texts/{name}"), named(spans, "text")
    assert f"{text.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent is not None and f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    above = text
    while above is not request:
        assert above.parent is not None
        above = by_id[above.parent.span_id]


async def test_a_callers_decision_not_to_trace_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = traced(monkeypatch, ParentBasedTraceIdRatio(1.0))
    await ask(CALLER.format(sampled="00"))
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("header", ["", "00-zz-zz-01", "x" * 5000])
async def test_a_broken_traceparent_begins_a_new_trace(spans: InMemorySpanExporter, header: str) -> None:
    await ask(header)
    assert named(spans, "GET /texts/{name}")[0].parent is None


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(SettingsError, match="sample_ratio must be between 0 and 1"):
        convert({"sample_ratio": 2}, TracingSettings, where="tracing")


def test_without_the_exporter_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    configure_tracing(TracingSettings())
    with pytest.raises(SettingsError, match=r"tracing\.endpoint: needs the package"):
        configure_tracing(TracingSettings(endpoint="http://collector:4318/v1/traces"))


@pytest.mark.parametrize("others", [True, False])
def test_an_endpoint_is_used_unless_tracing_is_set_up_already(monkeypatch: pytest.MonkeyPatch, others: bool) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    before = TracerProvider() if others else trace.ProxyTracerProvider()
    providers: list[TracerProvider] = []
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: before)
    monkeypatch.setattr(trace, "set_tracer_provider", providers.append)
    configure_tracing(TracingSettings(endpoint="http://127.0.0.1:9/v1/traces"))
    assert len(providers) == (0 if others else 1)
    for provider in providers:
        provider.shutdown()
