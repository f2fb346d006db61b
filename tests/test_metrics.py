from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorder import Recorder

from common.engine.sessions import MemoryUse
from common.types import Progress, SpeculationStats, StepCost, Timings
from serve.errors import ServiceOverloaded
from serve.telemetry.engine_metrics import EngineMetrics
from serve.telemetry.instruments import Instruments, Metric, flush_forever
from serve.telemetry.metric_names import ENGINE_METRICS, ROUTER_METRICS
from serve.telemetry.metrics import Metrics

DASHBOARD = Path(__file__).parent.parent / "cluster" / "dashboards" / "polydraft.json"
SERVE_METRICS = {
    # Of Ray Serve 2.60: `serve/_private/request_ingress_metrics.py` and `deployment_state.py`.
    "ray_serve_num_http_error_requests_total",
    "ray_serve_deployment_replica_healthy",
}
DE = {"language": "de", "drafter": "de/v1"}


class Clock:
    """Seconds, as it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def rounds(*lengths: tuple[int, int], drafter: str | None = "de/v1") -> list[Progress]:
    """Progress of rounds of (drafted, accepted) tokens; each takes 1 s of drafting, 2 of verifying, 3 on the wire."""
    progress, stats, timings = [], SpeculationStats(), Timings()
    for drafted, accepted in lengths:
        tokens = tuple(range(accepted + 1))
        stats += SpeculationStats(
            rounds=1,
            drafted_tokens=drafted,
            accepted_tokens=accepted,
            output_tokens=len(tokens),
            ahead_drafts=int(drafted == 4),
            ahead_tokens=3 * (drafted == 4),
        )
        timings += Timings(draft_s=1.0, verify_s=2.0, wire_s=3.0)
        progress.append(Progress(tokens=tokens, stats=stats, timings=timings, drafter=drafter))
    return progress


def test_rounds_become_vllms_counters() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    with metrics.text("de", prompt_tokens=7) as text:
        for progress in rounds((4, 2), (4, 4), (0, 0), (2, 0)):
            text.round_committed(progress)
    metrics.flush()

    def count(name: str, **labels: str) -> float:
        return recorder.sum(f"polydraft_{name}", **DE, **labels)

    assert recorder.sum("polydraft_prompt_tokens", language="de") == 7
    assert count("generation_tokens") == 3 + 5 + 1 + 1
    assert count("rounds") == 4
    assert count("spec_decode_num_drafts") == 3
    assert count("spec_decode_num_draft_tokens") == 10
    assert (count("spec_decode_num_drafts_ahead"), count("spec_decode_num_draft_tokens_ahead")) == (2, 6)
    assert count("spec_decode_num_accepted_tokens") == 6
    drafted = [count("spec_decode_num_draft_tokens_per_pos", position=str(n)) for n in range(5)]
    accepted = [count("spec_decode_num_accepted_tokens_per_pos", position=str(n)) for n in range(5)]
    assert drafted == [3, 3, 2, 2, 0]
    assert accepted == [2, 2, 1, 1, 0]
    assert [count("round_seconds", phase=phase) for phase in ("draft", "verify", "wire")] == [4.0, 8.0, 12.0]


@given(st.lists(st.integers(0, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=30))
def test_positions_add_up_to_tokens_however_often_it_is_flushed(lengths: list[tuple[int, int]]) -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    with metrics.text("de", prompt_tokens=1) as text:
        for number, progress in enumerate(rounds(*lengths)):
            text.round_committed(progress)
            if number % 3 == 0:
                metrics.flush()
    metrics.flush()
    for what, total in (("draft", sum(n for n, _ in lengths)), ("accepted", sum(n for _, n in lengths))):
        by_position = (
            recorder.sum(f"polydraft_spec_decode_num_{what}_tokens_per_pos", **DE, position=str(n)) for n in range(8)
        )
        assert sum(by_position) == recorder.sum(f"polydraft_spec_decode_num_{what}_tokens", **DE) == total


def test_a_round_is_told_for_the_drafter_that_was_at_work() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    first, second = rounds((2, 1)), rounds((2, 1), (0, 0), drafter=None)
    with metrics.text("de", prompt_tokens=1) as text:
        text.round_committed(first[0])
        text.round_committed(second[1])
    metrics.flush()
    assert recorder.sum("polydraft_generation_tokens", **DE) == 2
    assert recorder.sum("polydraft_generation_tokens", language="de", drafter="none") == 1


@pytest.mark.parametrize("outputs", [0, 1])
def test_what_is_told_of_a_prompt_is_no_round_and_no_first_token(outputs: int) -> None:
    recorder, clock = Recorder(), Clock()
    metrics = Metrics(recorder, {"de"}, clock)
    reason = None if outputs else "length"
    with metrics.text("de", prompt_tokens=9) as text:
        text.round_committed(Progress(tokens=(), stats=SpeculationStats(), finish_reason=reason))
        clock.now = 0.5
        for progress in rounds(*[(2, 1)] * outputs):
            text.round_committed(msgspec.structs.replace(progress, finish_reason="length"))
    metrics.flush()
    assert recorder.sum("polydraft_rounds", **DE) == outputs
    assert recorder.observed("polydraft_time_to_first_token_seconds", language="de") == [0.5] * outputs
    assert recorder.sum("polydraft_requests", language="de", finish_reason="length") == 1
    assert recorder.level("polydraft_num_requests_waiting", language="de") == 0


def test_an_unknown_language_is_other() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    for language in ("xx\n", None, "de"):
        with metrics.text(language, prompt_tokens=1):
            pass
    metrics.flush()
    told = {dict(labels)["language"] for _, labels in recorder.values}
    assert told == {"other", "de"}


def test_latencies_are_those_a_client_sees() -> None:
    recorder, clock = Recorder(), Clock()
    metrics = Metrics(recorder, {"de"}, clock)
    with metrics.text("de", prompt_tokens=1) as text:
        for progress, now in zip(rounds((4, 3), (4, 1), (4, 1)), (0.25, 0.35, 0.65), strict=True):
            clock.now = now
            text.round_committed(progress)
        clock.now = 99.0  # a reader that takes its time is not the server's latency
    metrics.flush()
    assert recorder.observed("polydraft_time_to_first_token_seconds", language="de") == [0.25]
    assert recorder.observed("polydraft_e2e_request_latency_seconds", language="de") == [0.65]
    per_token = recorder.observed("polydraft_request_time_per_output_token_seconds", language="de")
    assert per_token == [pytest.approx(0.1)]
    assert recorder.sum("polydraft_inter_token_latency_seconds_sum", language="de") == pytest.approx(0.4)
    below = {
        bound: recorder.sum("polydraft_inter_token_latency_seconds_bucket", language="de", le=bound)
        for bound in ("0.064", "0.128", "0.256", "0.512", "+Inf")
    }
    assert below == {"0.064": 0, "0.128": 1, "0.256": 1, "0.512": 2, "+Inf": 2}


def test_a_text_waits_then_runs_then_is_gone() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})

    def levels() -> tuple[float, float]:
        metrics.flush()
        waiting, running = (f"polydraft_num_requests_{state}" for state in ("waiting", "running"))
        return recorder.level(waiting, language="de"), recorder.level(running, language="de")

    with metrics.text("de", prompt_tokens=1):
        with pytest.raises(ServiceOverloaded), metrics.text("de", prompt_tokens=1):
            assert levels() == (2, 0)
            raise ServiceOverloaded("full")
        assert levels() == (1, 0)
    with metrics.text("de", prompt_tokens=1) as text:
        text.round_committed(rounds((0, 0))[0])
        assert levels() == (0, 1)
    assert levels() == (0, 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ServiceOverloaded("full"), "429"),
        (KeyError("ours"), "500"),
        (asyncio.CancelledError(), "closed"),
        (GeneratorExit(), "closed"),
    ],
)
def test_a_text_that_does_not_end_is_told_by_its_reason(error: BaseException, told: str) -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    with pytest.raises(type(error)), metrics.text("de", prompt_tokens=1):
        raise error
    metrics.flush()
    assert recorder.sum("polydraft_requests", language="de", finish_reason=told) == 1
    assert not recorder.observed("polydraft_e2e_request_latency_seconds", language="de")


def test_lost_replicas_are_counted() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    with metrics.text("de", prompt_tokens=1) as text:
        text.replicas_lost(verifiers=2, drafters=0)
    metrics.flush()
    assert recorder.sum("polydraft_verifier_replays", language="de") == 2
    assert recorder.sum("polydraft_drafter_losses", language="de") == 0


def test_rounds_do_not_touch_the_backend() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, {"de"})
    with metrics.text("de", prompt_tokens=1) as text:
        first, *others = rounds(*[(4, 2)] * 100)
        text.round_committed(first)
        before = recorder.calls
        for progress in others:
            text.round_committed(progress)
        assert recorder.calls == before


def test_a_second_flush_tells_counters_nothing() -> None:
    recorder = Recorder()
    instruments = Instruments(recorder, [Metric(name="n", kind="counter", description="")])
    instruments.add("n", 2)
    instruments.flush()
    instruments.flush()
    assert recorder.values["n", ()] == [2]


async def test_what_is_left_is_flushed_at_the_end() -> None:
    flushed = asyncio.Event()
    task = asyncio.create_task(flush_forever(flushed.set, every_s=3600))
    await asyncio.sleep(0)
    assert not flushed.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flushed.is_set()


def test_an_engine_tells_steps_sessions_and_memory() -> None:
    recorder = Recorder()
    metrics = EngineMetrics(recorder, "de/v1")
    metrics.step_finished(StepCost(0.003, 40))
    metrics.step_finished(StepCost(0.001, 2))
    memory = MemoryUse(free_blocks=5, cached_blocks=2, held_blocks=3, prefix_hit_tokens=32, preemptions=1)
    for _ in range(2):  # the engine's own counts are sums: told once
        metrics.flush(running=4, waiting=1, memory=memory)
    assert recorder.sum("polydraft_engine_step_seconds_bucket", model="de/v1", le="0.002") == 1
    assert recorder.sum("polydraft_engine_step_seconds_bucket", model="de/v1", le="+Inf") == 2
    assert recorder.sum("polydraft_engine_step_tokens_sum", model="de/v1") == 42
    assert recorder.sum("polydraft_prefix_cache_hits", model="de/v1") == 32
    assert recorder.sum("polydraft_num_preemptions", model="de/v1") == 1
    blocks = [recorder.level("polydraft_kv_blocks", model="de/v1", state=s) for s in ("free", "cached", "held")]
    assert blocks == [5, 2, 3]
    assert recorder.level("polydraft_engine_sessions", model="de/v1", state="waiting") == 1
    metrics.stopped()
    assert recorder.level("polydraft_engine_sessions", model="de/v1", state="running") == 0
    assert recorder.level("polydraft_kv_blocks", model="de/v1", state="held") == 0
    assert recorder.sum("polydraft_prefix_cache_hits", model="de/v1") == 32


def exported(metric: Metric) -> set[str]:
    """The names under which Prometheus finds it."""
    name = f"ray_{metric.name}"
    return {
        "counter": {f"{name}_total"},
        "gauge": {name},
        "histogram": {f"{name}_bucket", f"{name}_sum", f"{name}_count"},
        "tally": {f"{name}_bucket_total", f"{name}_sum_total"},
    }[metric.kind]


def test_labels_are_bounded() -> None:
    allowed = {"language", "drafter", "finish_reason", "phase", "position", "model", "state", "outcome"}
    assert {label for metric in (*ROUTER_METRICS, *ENGINE_METRICS) for label in metric.labels} <= allowed


def test_the_dashboard_shows_only_what_is_exported() -> None:
    expressions = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text(encoding="utf8"))["panels"]
        for target in panel.get("targets", ())
    ]
    used = {name for expression in expressions for name in re.findall(r"\bray_\w+", expression)}
    known = set().union(*map(exported, (*ROUTER_METRICS, *ENGINE_METRICS)))
    assert used <= known | SERVE_METRICS
    unshown = {metric.name for metric in (*ROUTER_METRICS, *ENGINE_METRICS) if not exported(metric) & used}
    assert not unshown, "a number that nobody looks at"


def test_ray_exports_the_numbers(ray_cluster: None) -> None:
    import ray
    from ray.serve import metrics as ray_metrics

    metrics = Metrics(ray_metrics, {"is"})  # a language of this test's own: others' numbers are exported as well
    with metrics.text("is", prompt_tokens=7) as text:
        for progress in rounds((4, 2), (4, 4)):
            text.round_committed(progress)
    metrics.flush()
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    page = ""

    def value(name: str, **labels: str) -> float:
        wanted = [f'{label}="{value}"' for label, value in {"language": "is", **labels}.items()]
        lines = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.split()[-1]) for line in lines if all(part in line for part in wanted))

    deadline = time.monotonic() + 60
    while not value("ray_polydraft_spec_decode_num_drafts_total"):
        assert time.monotonic() < deadline, "Ray reports every 10 s"
        time.sleep(0.2)
        page = urllib.request.urlopen(url, timeout=5).read().decode()
    assert value("ray_polydraft_spec_decode_num_drafts_total", drafter="de/v1") == 2
    assert value("ray_polydraft_spec_decode_num_accepted_tokens_per_pos_total", position="3") == 1
    assert value("ray_polydraft_time_to_first_token_seconds_count") == 1
    assert value("ray_polydraft_inter_token_latency_seconds_bucket_total", le="+Inf") == 1
    assert value("ray_polydraft_num_requests_running") == 0
