import math
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cluster.bench.plain_loop import PlainLoop
from tests.tiny_tokenizer import byte_level
from train.job import LoopSettings, TrainingJob, Validation
from train.packing import Document, PackedRows, pack
from train.preemption import PreemptibleTorch
from train.trainer import ENVIRONMENT, Progress, Resources, TrainingFailure, fit, fit_all
from train.validation import judgements, write_prompts

SETTINGS = LoopSettings(
    steps=120,
    rows_per_step=8,
    micro_rows=2,
    row_length=32,
    learning_rate=1e-2,
    checkpoint_every=20,
    log_every=1,
)
SHAPE = LlamaConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=64,
)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, `init`, `tied` and `steady` (without dropout), and `data`: documents that count upwards."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, tied, dropout in (("init", False, 0.1), ("tied", True, 0.1), ("steady", False, 0.0)):
        torch.manual_seed(0)
        SHAPE.tie_word_embeddings, SHAPE.attention_dropout = tied, dropout
        LlamaForCausalLM(SHAPE).save_pretrained(folder / name)
    (folder / "init" / "tokenizer.json").write_text("{}")
    random = np.random.default_rng(0)
    spans = zip(random.integers(0, 64, 200), random.integers(5, 20, 200), strict=True)
    documents = [Document((np.arange(start, start + length) % 64).tolist()) for start, length in spans]
    pack(documents, SETTINGS.row_length, seed=0).save(folder / "data")
    return folder


def make_job(inputs: Path, output: Path, init: str = "init", **changes: Any) -> TrainingJob:
    return TrainingJob(
        name=output.name,
        init=str(inputs / init),
        data=str(inputs / "data"),
        output=str(output),
        settings=msgspec.structs.replace(SETTINGS, **changes),
    )


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def log_lines(output: Path) -> list[Progress]:
    return [msgspec.json.decode(line, type=Progress) for line in Path(f"{output}.jsonl").read_bytes().splitlines()]


def train(job: TrainingJob, crash_at: int | None = None, stop_at: int | None = None, max_failures: int = 1) -> None:
    """Two workers; the second is killed once, when it comes to step `crash_at`, or told to stop, during `stop_at`.

    Each leaves its final weights in ``<output>-<rank>.safetensors`` and its steps in ``<output>-<rank>.steps``.
    """

    def observed_loop(config: dict[str, Any]) -> None:
        import train.loop as loop
        import train.preemption as loop_preemption

        export, take = loop.export, loop.Steps.take

        def keep(model: Any, job: TrainingJob, rank: int) -> None:
            copies = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            save_file(copies, f"{job.output}-{rank}.safetensors")
            export(model, job, rank)

        def take_or_die(self: Any, step: int) -> None:
            steps = Path(f"{job.output}-{self._rank}.steps")
            done = steps.read_text().split() if steps.exists() else []
            if self._rank == 1 and step == crash_at and str(step) not in done:
                steps.write_text(" ".join([*done, str(step)]))
                os.kill(os.getpid(), signal.SIGKILL)
            steps.write_text(" ".join([*done, str(step)]))
            if self._rank == 1 and step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
                assert loop_preemption.TOLD.wait(60)
            take(self, step)

        loop.export, loop.Steps.take = keep, take_or_die  # type: ignore[method-assign]
        loop.train_loop(config)

    storage = str(Path(job.output).parent / "storage")
    TorchTrainer(
        observed_loop,
        train_loop_config={"job": msgspec.to_builtins(job)},
        torch_config=PreemptibleTorch(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name=job.name, storage_path=storage, failure_config=FailureConfig(max_failures=max_failures)
        ),
    ).fit()


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of an undisturbed run of two workers."""
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        train(make_job(inputs, output))
    return output


def test_two_workers_learn_and_end_with_the_same_weights(undisturbed: Path, inputs: Path) -> None:
    losses = [line.loss for line in log_lines(undisturbed)]
    assert len(losses) == SETTINGS.steps
    assert losses[0] > 0.9 * math.log(64) and losses[-1] < 0.5 * losses[0]
    one, other = (load_file(f"{undisturbed}-{rank}.safetensors") for rank in (0, 1))
    assert same(one, other) and same(one, weights(undisturbed))
    assert not same(one, weights(inputs / "init"))


def test_the_trained_model_is_a_plain_folder_with_its_tokenizer(undisturbed: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(undisturbed)
    counted = model.generate(torch.tensor([[3, 4, 5, 6]]), max_new_tokens=4, do_sample=False)
    assert counted[0].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert (undisturbed / "tokenizer.json").exists()
    assert not [path.name for path in undisturbed.parent.iterdir() if path.name.startswith(".")]


def test_a_killed_worker_changes_nothing_in_the_result(
    undisturbed: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    output = tmp_path / "disturbed"
    train(make_job(inputs, output), crash_at=70)
    steps = [int(step) for step in Path(f"{output}-1.steps").read_text().split()]
    crashed = steps.index(70)
    assert steps[: crashed + 1] == list(range(71))
    assert steps[crashed + 1] in (20, 40, 60), "it did not resume at a checkpoint"
    assert same(weights(output), weights(undisturbed))
    disturbed, reference = log_lines(output), log_lines(undisturbed)
    assert [(line.step, line.loss) for line in disturbed] == [(line.step, line.loss) for line in reference]


def test_a_language_that_fails_leaves_the_others_alone(ray_cluster: None, inputs: Path, tmp_path: Path) -> None:
    jobs = {
        "de": make_job(inputs, tmp_path / "de", init="tied", steps=20, zero_stage=3, checkpoint_every=0),
        "fr": make_job(inputs, tmp_path / "fr", steps=20, learning_rate=1e30, clip=1e30),
        "ja": make_job(inputs, tmp_path / "ja", init="missing"),
    }
    seen: dict[str, Progress] = {}
    resources = Resources(storage=str(tmp_path / "storage"), max_failures=0)
    outcomes = fit_all(jobs, resources, seen.__setitem__)
    german, french, japanese = outcomes["de"], outcomes["fr"], outcomes["ja"]
    assert isinstance(german, Progress) and german.step == 20 and seen["de"] == german
    assert not same(weights(tmp_path / "de"), weights(inputs / "tied"))
    assert isinstance(french, TrainingFailure) and french.message.startswith("step 2: loss ")
    assert isinstance(japanese, TrainingFailure) and "config.json: no such file" in japanese.message
    assert not (tmp_path / "fr").exists()


def test_a_run_that_diverges_is_not_tried_again(ray_cluster: None, inputs: Path, tmp_path: Path) -> None:
    job = make_job(inputs, tmp_path / "diverging", steps=20, learning_rate=1e30, clip=1e30)
    with pytest.raises(ValueError, match="diverging: step 2: loss "):
        fit(job, Resources(storage=str(tmp_path / "storage"), max_failures=3))
    assert len(list(Path(f"{job.output}.tensorboard").iterdir())) == 1, "every attempt writes a file"


ZERO_TOLERANCE = 1e-4
"""Relative, of a loss after 40 steps: ZeRO sums gradients in another order."""


@pytest.fixture(scope="module")
def plain(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of 40 steps of a plain PyTorch loop."""
    job = make_job(inputs, tmp_path_factory.mktemp("plain"), init="steady", steps=40)
    loop = PlainLoop(job, PackedRows.load(inputs / "data"))
    loop.run(0, 40)
    assert loop.losses[-1] < 0.8 * loop.losses[0]
    return loop.losses


def test_three_languages_of_two_workers_train_at_once_and_as_a_plain_loop_does_whatever_zero_divides(
    ray_cluster: None, plain: list[float], inputs: Path, tmp_path: Path
) -> None:
    stages = {"de": 0, "fr": 1, "ja": 3}
    jobs = {
        language: make_job(inputs, tmp_path / language, init="steady", steps=40, zero_stage=stage, checkpoint_every=0)
        for language, stage in stages.items()
    }
    outcomes = fit_all(jobs, Resources(workers=2, storage=str(tmp_path / "storage"), max_failures=0))
    assert all(isinstance(outcome, Progress) for outcome in outcomes.values()), outcomes
    for language in stages:
        losses = [line.loss for line in log_lines(tmp_path / language)]
        assert losses == pytest.approx(plain, rel=ZERO_TOLERANCE), language


def test_a_run_told_to_stop_goes_on_with_fewer_workers_of_more_rows_and_ends_with_the_best_checkpoint(
    ray_cluster: None, plain: list[float], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    byte_level().save_pretrained(tmp_path / "target")
    LlamaForCausalLM.from_pretrained(inputs / "steady").save_pretrained(tmp_path / "target")
    write_prompts(tmp_path / "prompts", [(1, 2, 3), (7, 8)])
    validation = Validation(target=str(tmp_path / "target"), prompts=str(tmp_path / "prompts"), max_tokens=8)
    output = tmp_path / "stopped"
    unjudged = make_job(inputs, output, init="steady", steps=40, zero_stage=2, checkpoint_every=0, validate_every=30)
    job = msgspec.structs.replace(unjudged, validation=validation)
    with pytest.raises(WorkerGroupError, match="told to stop after step 13, which is saved"):
        train(job, stop_at=12, max_failures=0)
    assert not output.exists() and log_lines(output)[-1].step == 13

    other = msgspec.structs.replace(job, settings=msgspec.structs.replace(job.settings, micro_rows=4))
    progress = fit(other, Resources(workers=1, storage=str(tmp_path / "storage"), max_failures=0))
    lines = log_lines(output)
    assert [line.step for line in lines] == list(range(1, 41))
    assert [line.loss for line in lines] == pytest.approx(plain, rel=ZERO_TOLERANCE)
    judged = judgements(job.output)
    assert [judgement.step for judgement in judged] == [30, 40]
    best = max(judged, key=lambda judgement: (judgement.score, judgement.step))
    assert progress.acceptance == best.score >= 1.0
    kept = tmp_path / "storage" / "stopped" / f"checkpoint_{best.step:08d}_1" / "model"
    assert same(weights(output), weights(kept))
