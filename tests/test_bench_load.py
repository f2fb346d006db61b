"""The load and autoscaling benchmarks: their figures by hand, their client on a server of the test's, and one run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest
import tiny
import tiny_tokenizer
import torch
from aiohttp import web
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.bench import load
from cluster.bench.autoscale import Phase, Recording, Sample, autoscaled, measure
from cluster.bench.http_load import Endpoint, LoadGenerator, LoadResult, Question, Reply, read_reply, stream_all
from cluster.bench.service import choose_languages, make_questions
from cluster.config import Config, load_config
from cluster.run import Run
from common.models import fingerprint, load_tokenizer
from common.models import load_config as load_model_config
from common.registry import Registry
from common.settings import SettingsError
from train.evaluation.paired import Timed, speed, speed_ratio


def timed(tokens: int, seconds: float) -> Timed:
    return Timed(tokens=tokens, seconds=seconds)


def test_speed_is_of_all_blocks_together() -> None:
    assert speed([timed(10, 1.0), timed(90, 1.0)]) == 50.0


def test_a_ratio_that_is_the_same_in_every_pair_is_certain_however_the_machine_wavers() -> None:
    pairs = [(timed(100, 1.0 * slow), timed(100, 1.5 * slow)) for slow in (1.0, 7.0, 0.3, 2.0)]
    ratio = speed_ratio(pairs)
    assert ratio.value == pytest.approx(1.5) and ratio.low == pytest.approx(1.5) and ratio.high == pytest.approx(1.5)


def test_a_ratio_that_varies_between_pairs_is_as_uncertain_as_a_mean_of_so_many() -> None:
    ratio = speed_ratio([(timed(100, 1.0), timed(100, ratio)) for ratio in (0.9, 1.0, 1.2, 1.3, 1.1)])
    assert ratio.value == pytest.approx(1.1)
    assert ratio.high - 1.1 == pytest.approx(2.776 * 0.1581 / 5**0.5, rel=1e-3)  # Student's, of five


async def lines(*given: str) -> AsyncIterator[bytes]:
    for line in given:
        yield line.encode() + b"\n"


async def test_a_streams_text_tokens_and_rounds_are_read_and_comments_skipped() -> None:
    reply = Reply(started_s=0.0)
    await read_reply(
        lines(
            'data: {"choices": [{"index": 0, "text": "Die", "finish_reason": null}]}',
            "",
            ": keep-alive",
            'data: {"choices": [{"index": 0, "text": " Katze", "finish_reason": null}]}',
            'data: {"choices": [{"index": 0, "text": ""}], "polydraft": {"rounds": 3, "drafter": null}}',
            'data: {"choices": [], "usage": {"completion_tokens": 7}, "polydraft": {"rounds": 3}}',
            "data: [DONE]",
        ),
        reply,
    )
    assert (reply.text, reply.tokens, reply.rounds, reply.error) == ("Die Katze", 7, 3, None)
    assert len(reply.piece_times_s) == 2


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (['data: {"choices": [{"text": "a"}]}'], "the stream ended"),
        (['data: {"error": {"message": "no verifier", "code": 503}}'], "no verifier"),
    ],
)
async def test_a_stream_that_breaks_off_is_a_failure(sent: list[str], error: str) -> None:
    reply = Reply(started_s=0.0)
    await read_reply(lines(*sent), reply)
    assert reply.error is not None and error in reply.error


def reply(text: str, *, tokens: int = 4, rounds: int = 2, error: str | None = None) -> Reply:
    return Reply(
        started_s=10.0,
        piece_times_s=[10.1, 10.2, 10.4],
        ended_s=10.4,
        text=text,
        tokens=tokens,
        rounds=rounds,
        error=error,
    )


def result(replies: Iterable[Reply], seconds: float) -> LoadResult:
    return LoadResult(replies=list(replies), seconds=seconds, cpu_seconds=seconds / 4)


def test_a_level_counts_what_differs_and_what_failed() -> None:
    on = result([reply("a"), reply("b"), reply("", tokens=0, rounds=0, error="503")], 1.0)
    off = result([reply("a", rounds=4), reply("c", rounds=4), reply("d", rounds=4)], 2.0)
    level = load.summarise([{"on": on, "off": off}] * 3)
    assert (level.unequal, level.failed) == (3, 3)
    assert (level.on, level.off) == (8.0, 6.0)
    assert level.mean_acceptance_length == 2.0
    assert level.client_load == pytest.approx(0.25)
    assert level.latencies["off"].first_token_ms == (100.0, 100.0)
    assert level.latencies["off"].between_pieces_ms[0] == 150.0
    assert level.latencies["off"].per_token_ms[0] == 100.0


def test_a_load_is_repeated_until_it_is_stopped_and_then_done_once() -> None:
    question = Question(prompt="q", language="de", temperature=0.0, seed=0, max_tokens=1)
    nowhere = Endpoint(url="http://127.0.0.1:1/v1", model="m")
    with LoadGenerator() as generator:
        repeating = generator.start(nowhere, [question], 2, repeat=True)
        generator.stop()
        assert all(reply.error for reply in repeating.result(timeout=60).replies)
        assert len(generator.start(nowhere, [question] * 3, 2).result(timeout=60).replies) == 3


async def test_the_client_keeps_the_streams_busy_and_the_replies_in_order() -> None:
    most = now = 0
    release = asyncio.Event()

    async def completions(request: web.Request) -> web.StreamResponse:
        nonlocal most, now
        now += 1
        most = max(most, now)
        if most == 3:
            release.set()
        await release.wait()
        body = await request.json()
        now -= 1
        if body["seed"] == 4:
            return web.json_response({"error": {"message": "full"}}, status=429)
        event = {"choices": [{"text": body["prompt"]}], "usage": {"completion_tokens": 1}}
        return web.Response(text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    app = web.Application()
    app.router.add_post("/v1/completions", completions)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    asked = [Question(prompt=f"q{n}", language="de", temperature=0.0, seed=n, max_tokens=5) for n in range(7)]
    replies = await stream_all(Endpoint(url=f"http://{host}:{port}/v1", model="m"), iter(asked), 3, "off")
    await runner.cleanup()
    assert most == 3
    assert [r.text for r in replies] == ["q0", "q1", "q2", "q3", "", "q5", "q6"]
    assert [r.seed for r, q in zip(asked, replies, strict=True) if q.error] == [4]
    assert replies[4].error is not None and replies[4].error.startswith("429: ")


def recording(de: list[int], fr: list[int], phases: dict[str, Phase]) -> Recording:
    """One sample a second."""
    return Recording(
        samples=[
            Sample(seconds=float(second), running={"de": d, "fr": f}, starting={"de": 0, "fr": 0})
            for second, (d, f) in enumerate(zip(de, fr, strict=True))
        ],
        phases=phases,
        replies=[Reply(started_s=101.0, ended_s=103.0), Reply(started_s=102.0, ended_s=104.0)],
        started_s=100.0,
    )


def test_scaling_is_read_from_the_samples() -> None:
    phases = {"de": Phase(start_s=1.0, end_s=5.0), "fr": Phase(start_s=5.0, end_s=9.0)}
    made = recording([0, 0, 1, 1, 3, 3, 3, 2, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], phases)
    scaling = measure(made, "de")
    assert (scaling.peak_replicas, scaling.first_replica_s, scaling.scale_up_s) == (3, 1.0, 3.0)
    assert (scaling.scale_down_s, scaling.to_zero_s, scaling.scaled_to_zero) == (2.0, 4.0, True)
    never = measure(made, "fr")
    assert (never.peak_replicas, never.first_replica_s, never.scaled_to_zero) == (0, None, False)
    assert [made.in_flight(s) for s in (0.5, 1.5, 2.5, 3.5, 4.5)] == [0, 1, 2, 1, 0]


def test_a_phase_is_settled_when_its_drafters_are_all_there_and_the_others_gone() -> None:
    made = recording([2, 2, 1, 0], [0, 2, 2, 2], {})
    assert [sample.settled("fr") for sample in made.samples] == [False, False, False, True]
    assert made.samples[0].settled("de") and not any(sample.empty for sample in made.samples)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from cluster.bench.plot import plot_recording

    phases = {"de": Phase(start_s=0.0, end_s=2.0), "fr": Phase(start_s=2.0, end_s=4.0)}
    plot_recording(recording([0, 1, 2, 1, 0], [0, 0, 1, 2, 0], phases), tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_languages_are_chosen_by_name_or_all() -> None:
    config = load_config("quickstart")
    assert choose_languages(config, "all") == config.languages
    assert choose_languages(config, "fr,de,fr") == ("fr", "de")
    with pytest.raises(SettingsError, match="--languages: `xx`"):
        choose_languages(config, "de,xx")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A target with random weights, a drafter that mostly agrees with it, and test sentences."""
    tokenizer = tiny_tokenizer.byte_level()
    torch.manual_seed(0)
    shape = LlamaConfig(**tiny.SHAPES["llama"].to_dict() | {"vocab_size": 400, "eos_token_id": 1})
    target = LlamaForCausalLM(shape)
    for name, model in (("target", target), ("de", tiny.perturbed(target.double(), 0.02).float())):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "de.tsv").write_text("".join(f"Satz {n}\tSentence {n}\n" for n in range(9)), encoding="utf8")
    published = Registry(tmp_path / "registry").publish(
        "de",
        tmp_path / "de",
        target="tiny",
        fingerprint=fingerprint(load_tokenizer(tmp_path / "de"), load_model_config(tmp_path / "de")),
        metrics={},
        provenance={},
    )
    Registry(tmp_path / "registry").promote("de", published.version)
    return Run(
        folder=tmp_path / "run",
        config=tiny_config(),
        given_target=tmp_path / "target",
        registry=str(tmp_path / "registry"),
    )


def tiny_config() -> Config:
    """The quickstart's, for tiny models in float64, where equality is exact."""
    config, replace = load_config("quickstart"), msgspec.structs.replace
    replica = replace(config.serve.verifier, num_cpus=0.1, dtype="float64", kv_tokens=4096)
    return replace(
        config,
        languages=("de",),
        train=replace(
            config.train,
            corpus=replace(config.train.corpus, test=("{data}/{language}.tsv",)),
            evaluate=replace(config.train.evaluate, max_tokens=8),
        ),
        serve=replace(config.serve, router_cpus=0.1, verifier=replica, drafter=replica),
    )


def test_questions_take_languages_and_temperatures_in_turns(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fr.tsv").write_text("Un\tOne\nDeux\tTwo\n", encoding="utf8")
    questions = make_questions(run, str(tmp_path), ["de", "fr"], 10, [0.0, 1.0])
    assert [q.language for q in questions[:4]] == ["de", "fr", "de", "fr"]
    assert [q.temperature for q in questions[:6]] == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert [q.seed for q in questions] == list(range(10))
    assert questions[0].prompt == "Translate German to English:Satz 0\n"
    assert questions[5].prompt == questions[1].prompt, "sentences begin anew when there are no more"


def test_questions_can_be_the_longest_only(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fr.tsv").write_text("Un\tOne\nDeux\tTwo\n", encoding="utf8")
    questions = make_questions(run, str(tmp_path), ["fr"], 2, [0.0], longest=0.5)
    assert {q.prompt for q in questions} == {"Translate French to English:Deux\n"}


def test_autoscaling_changes_the_drafters_only() -> None:
    config = tiny_config()
    scaled = autoscaled(config, ("de",)).serve
    assert scaled.drafter.autoscaling is not None and scaled.drafter.autoscaling.min_replicas == 0
    assert scaled.verifier == config.serve.verifier


def test_load_measures_both_ways_on_the_real_service(
    ray_cluster: None, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "MIN_QUESTIONS", 2)
    monkeypatch.setattr(load, "QUESTIONS_PER_STREAM", 2)
    load.main(run, str(tmp_path), "all", [2], 3, [0.0, 1.0])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["unequal"], figures["failed"]) == (0, 0)
    assert figures["concurrency"].keys() == {"2"} and "git_revision" in figures["provenance"]
    for level in figures["concurrency"].values():
        assert level["on"] > 0 and level["off"] > 0
        assert level["ratio"]["low"] <= level["ratio"]["value"] <= level["ratio"]["high"]


@pytest.mark.parametrize(("streams", "repetitions", "named"), [(1, 2, "--repetitions"), (0, 3, "--concurrency")])
def test_what_cannot_be_measured_is_refused_before_any_work(
    run: Run, streams: int, repetitions: int, named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        load.main(run, "", "all", [streams], repetitions, [0.0])
