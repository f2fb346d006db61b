"""What a training run tells and keeps, without Ray: log, trackers, judged checkpoints, disks that fill."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import ray.train
import torch
from ray.train import Checkpoint
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import LlamaConfig, LlamaForCausalLM

from common.types import SpeculationStats
from tests.tiny_tokenizer import byte_level
from train import checkpoint, loop, run
from train.evaluation.acceptance import Acceptance
from train.export import ExportError, appearing, export
from train.failures import CheckpointError, EndAtOnce, TrainingDiverged
from train.job import LoopSettings, TrainingJob, Validation
from train.packing import Document, pack
from train.progress import StepFigures, read_progress
from train.recipe import EvaluateSettings
from train.run import Resources
from train.validation import judgements, read_prompts, validate, write_prompts
from train.watching.reporter import Reporter
from train.watching.trackers import tensorboard_folder
from train.watching.utilisation import flops_per_token, peak_memory_bytes

SETTINGS = LoopSettings(steps=100, rows_per_step=4, learning_rate=0.5, row_length=16)
FIGURES = StepFigures(
    loss=4.0, terms={"ce": 4.0}, learning_rate=0.1, gradient_norm=1.0, waited_s=0.0, peak_memory_bytes=7
)

MEASURED = Acceptance(
    temperature=0.0,
    draft_length=4,
    prompts=1,
    stats=SpeculationStats(),
    mean_acceptance_length=2.0,
    acceptance_rate=0.5,
    accepted_per_position=[],
)


def model(seed: int, vocabulary: int = 400) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )


def make_job(folder: Path, **changes: Any) -> TrainingJob:
    settings = msgspec.structs.replace(SETTINGS, **changes)
    return TrainingJob(
        name="run", init=str(folder / "init"), data=str(folder / "data"), output=str(folder / "out"), settings=settings
    )


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(tensorboard_folder(str(folder / "out"))).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_line_of_the_log_goes_to_tensorboard_too_and_a_resumed_run_writes_over_what_it_does_again(
    tmp_path: Path,
) -> None:
    rows = pack([Document([1, 2, 3])], 16, seed=0)
    job = make_job(tmp_path, peak_tflops=1e-9)
    for resumed, steps in ((0, (10, 20)), (10, (20, 30))):
        reporter = Reporter(job, rows, flops_per_token=10.0, workers=2, resumed_step=resumed)
        for step in steps:
            reporter.tell(step, msgspec.structs.replace(FIGURES, loss=float(step + resumed)))
        reporter.close()
    progress = read_progress(job.output)
    assert progress is not None and progress.padding_share == pytest.approx(13 / 16)
    assert progress.mfu == pytest.approx(progress.tokens_per_second * 10.0 / (2 * 1e-9 * 1e12))
    assert scalars(tmp_path, "loss") == [(10, 10.0), (20, 30.0), (30, 40.0)]
    assert scalars(tmp_path, "terms/ce")[0] == (10, 4.0)


def test_wandb_and_mlflow_are_told_the_same_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, float]] = []
    run = SimpleNamespace(log=lambda values, step: told.append(("wandb", step, values["loss"])), finish=lambda: None)
    mlflow = SimpleNamespace(
        set_experiment=lambda name: None,
        start_run=lambda run_name: None,
        log_params=lambda settings: None,
        log_metrics=lambda values, step: told.append(("mlflow", step, values["loss"])),
        end_run=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **settings: run))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    job = make_job(tmp_path, trackers=("wandb", "mlflow"))
    reporter = Reporter(job, pack([Document([1, 2])], 16, seed=0), 10.0, workers=1, resumed_step=0)
    reporter.tell(10, FIGURES)
    reporter.close()
    assert told == [("wandb", 10, 4.0), ("mlflow", 10, 4.0)]


def test_a_tracker_that_is_not_installed_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.job.find_spec", lambda package: None)
    with pytest.raises(ValueError, match="trackers: the package wandb is not installed"):
        make_job(tmp_path, trackers=("wandb",)).check(1)


def test_the_memory_told_is_that_of_the_device_computed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert peak_memory_bytes(torch.device("cpu")) > 1e6
    assert peak_memory_bytes(torch.device("cuda", 0)) == 7


def test_flops_count_every_matrix_that_a_token_is_multiplied_with() -> None:
    tiny = model(0)
    multiplied = sum(p.numel() for p in tiny.parameters()) - tiny.get_input_embeddings().weight.numel()
    assert flops_per_token(tiny, 32) == 6 * multiplied + 12 * 1 * 16 * 32


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[TrainingJob]:
    """A job whose target is in `target`, and whose prompts are three."""
    tokenizer = byte_level()
    model(0, len(tokenizer)).save_pretrained(tmp_path / "target")
    tokenizer.save_pretrained(tmp_path / "target")
    write_prompts(tmp_path / "prompts", [(5, 6, 7), (8,), (9, 10)])
    validation = Validation(
        target=str(tmp_path / "target"), prompts=str(tmp_path / "prompts"), draft_length=3, max_tokens=12
    )
    yield msgspec.structs.replace(make_job(tmp_path, validate_every=10), validation=validation)


def test_a_checkpoint_is_judged_by_decoding_with_it(judged: TrainingJob, tmp_path: Path) -> None:
    built_in = msgspec.to_builtins(judged)
    for step, seed in ((10, 1), (20, 0)):
        model(seed, len(byte_level())).save_pretrained(tmp_path / f"{step}" / "model")
        metrics = validate(Checkpoint.from_directory(tmp_path / f"{step}"), job=built_in, gpus=0.0, step=step)
    other, same = judgements(judged.output)
    assert (other.step, same.step) == (10, 20)
    # A drafter that is the target itself is never refused; each text's last round may be cut short.
    assert same.acceptance[0].acceptance_rate == 1.0 and other.score < 2 < same.score == metrics["acceptance"]
    assert [measured.temperature for measured in same.acceptance] == [0.0, 1.0]
    assert scalars(tmp_path, "acceptance/T=0") == [(10, pytest.approx(other.score)), (20, pytest.approx(same.score))]
    reporter = Reporter(judged, pack([Document([1, 2])], 16, seed=0), 10.0, workers=1, resumed_step=0)
    reporter.tell(30, FIGURES)
    progress = read_progress(judged.output)
    assert progress is not None and progress.acceptance == same.score


def test_a_judgement_that_was_cut_off_is_dropped_and_written_over(judged: TrainingJob, tmp_path: Path) -> None:
    Path(f"{judged.output}.acceptance.jsonl").write_bytes(b'{"step": 10, "accep')
    assert judgements(judged.output) == []
    model(0, len(byte_level())).save_pretrained(tmp_path / "20" / "model")
    validate(Checkpoint.from_directory(tmp_path / "20"), job=msgspec.to_builtins(judged), gpus=0.0, step=20)
    assert [judgement.step for judgement in judgements(judged.output)] == [20]


def test_a_checkpoint_is_judged_where_and_in_the_precision_that_was_asked_for(
    judged: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EvaluateSettings] = []

    def judge(target: Path, drafter: Path, settings: EvaluateSettings) -> Any:
        asked.append(settings)
        return SimpleNamespace(acceptance=lambda prompts: [MEASURED, MEASURED])

    monkeypatch.setattr("train.validation.Models", judge)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert judged.validation is not None
    validation = msgspec.structs.replace(judged.validation, dtype="bfloat16")
    job = msgspec.to_builtins(msgspec.structs.replace(judged, validation=validation))
    for gpus in (0.0, 0.5):
        validate(Checkpoint.from_directory(tmp_path), job=job, gpus=gpus, step=20)
    assert [(settings.device, settings.dtype) for settings in asked] == [("cpu", "bfloat16"), ("cuda", "bfloat16")]


def test_judging_takes_no_cpu_that_trainers_wait_for(judged: TrainingJob) -> None:
    config = run._validation(judged, Resources(storage="", cpus_per_worker=2))
    assert config.ray_remote_kwargs["num_cpus"] == 0 and config.ray_remote_kwargs["num_gpus"] == 0


def test_while_a_checkpoint_waits_for_its_judgement_others_are_only_saved(
    judged: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps long, here: that of step 10 is known before 50 comes."""
    waiting, reported = {20: True, 30: True, 40: True}, dict[int, bool]()
    monkeypatch.setattr(loop, "StopRequest", lambda *_: SimpleNamespace(order=lambda ask_ray: loop.Order.GO_ON))
    monkeypatch.setattr(loop.distributed, "get_world_size", lambda: 1)
    steps = SimpleNamespace(take=lambda done: taken.append(done + 1), figures=lambda _: FIGURES)
    taken: list[int] = []
    monkeypatch.setattr(checkpoint, "awaits_judgement", lambda: waiting.get(taken[-1], False))
    monkeypatch.setattr(checkpoint, "report", lambda engine, job, step, judge: reported.update({step: judge}))
    waiting[55] = True
    settings = msgspec.structs.replace(judged.settings, steps=55)
    loop.run_steps(None, msgspec.structs.replace(judged, settings=settings), steps, None, 0)  # type: ignore[arg-type]
    assert reported == {10: True, 20: False, 30: False, 40: False, 50: True, 55: True}, "the last one always is judged"


@pytest.mark.parametrize("error", [TrainingDiverged("step 2: loss nan"), CheckpointError("the disk is full")])
def test_what_would_fail_again_ends_the_run_unless_a_worker_died_of_something_else(error: Exception) -> None:
    callback = EndAtOnce()
    callback.after_exception(None, {0: error, 1: ray.exceptions.RayActorError()})
    callback.after_exception(None, {0: RuntimeError("connection closed by peer")})
    with pytest.raises(type(error), match=str(error)):
        callback.after_exception(None, {0: RuntimeError("connection closed by peer"), 1: error})


@pytest.mark.parametrize("content", ["", "[1, 2]\n[]\n", "1, 2\n", '["a"]\n'])
def test_a_file_that_holds_no_prompts_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "prompts").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/prompts: "):
        read_prompts(tmp_path / "prompts")


def test_judging_needs_to_know_against_what(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validate_every is 5, but the job has no validation"):
        make_job(tmp_path, validate_every=5).check(1)


def test_a_disk_that_fills_leaves_the_model_of_before_and_nothing_else(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with appearing(tmp_path / "model") as folder:
            (folder / "weights").write_text(content)
    with pytest.raises(OSError), appearing(tmp_path / "model") as folder:
        (folder / "weights").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "new"


def test_a_model_that_cannot_be_written_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    drafter = model(0)
    monkeypatch.setattr(drafter, "save_pretrained", full)
    with pytest.raises(ExportError, match=r"out: the trained model could not be written: .*No space left"):
        export(drafter, make_job(tmp_path), rank=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("writer failed")])
def test_a_checkpoint_that_cannot_be_written_names_its_step_and_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(folder: str, tag: str) -> None:
        Path(folder, tag).write_text("half")
        raise error

    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=int, get_world_size=int))
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: pytest.fail("reported"))
    with pytest.raises(
        CheckpointError, match=f"run: the checkpoint of step 40 could not be written: .*{error.args[-1]}"
    ):
        checkpoint.report(SimpleNamespace(save_checkpoint=full), make_job(tmp_path), 40, judge=False)


def test_the_best_checkpoint_becomes_the_model(tmp_path: Path) -> None:
    best = model(3)
    best.save_pretrained(tmp_path / "checkpoint" / "model")
    checkpoint.publish(Checkpoint.from_directory(tmp_path / "checkpoint"), str(tmp_path / "out"))
    published = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(published["lm_head.weight"], best.lm_head.weight)
