"""What the training loop is made of, without Ray."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from train import loop
from train.estimate import checkpoint_bytes
from train.job import LoopSettings, TrainingJob
from train.loop import learning_rate
from train.packing import Document, pack
from train.progress import ProgressLog, StepFigures, read_progress
from train.sampler import RowSampler

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
SETTINGS = LoopSettings(steps=100, rows_per_step=4, learning_rate=0.5, row_length=16)


def save(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def make_job(folder: Path, tokens: list[int], settings: LoopSettings = SETTINGS) -> TrainingJob:
    init = save(LlamaForCausalLM(LlamaConfig(**SHAPE)), folder / "init")
    pack([Document(tokens)], 16, seed=0).save(folder / "data")
    return TrainingJob(name="run", init=init, data=str(folder / "data"), output=str(folder / "out"), settings=settings)


@given(st.integers(1, 20), st.integers(1, 10), st.integers(0, 3))
def test_every_epoch_takes_every_row_once(rows: int, rows_per_step: int, seed: int) -> None:
    sampler = RowSampler(rows, rows_per_step, seed)
    taken = np.concatenate([sampler.step(step) for step in range(3 * rows)])
    assert taken.shape == (3 * rows * rows_per_step,)
    for epoch in taken.reshape(-1, rows):
        assert sorted(epoch.tolist()) == list(range(rows))


def test_the_rows_of_a_step_do_not_depend_on_the_steps_before() -> None:
    orders = [RowSampler(100, 7, seed=1).step(50).tolist() for _ in range(2)]
    assert orders[0] == orders[1] != RowSampler(100, 7, seed=2).step(50).tolist()
    sampler = RowSampler(100, 100, seed=1)
    assert sampler.step(0).tolist() != sampler.step(1).tolist()


def test_the_learning_rate_rises_then_falls_on_a_cosine_to_zero() -> None:
    settings = msgspec.structs.replace(SETTINGS, warmup_share=0.2)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.5 / 20)
    assert rates[20] == max(rates) == 0.5
    assert rates[60] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert learning_rate(0, msgspec.structs.replace(SETTINGS, warmup_share=0)) == 0.5


@pytest.mark.parametrize(
    ("settings", "tokens", "workers", "message"),
    [
        (SETTINGS, [1, 64], 1, "data: token id 64, but .*init has a vocabulary of 64"),
        (SETTINGS, [1, 2], 3, "rows_per_step is 4, must be a multiple of the 3 workers"),
        (msgspec.structs.replace(SETTINGS, row_length=8), [1, 2], 1, "data: rows of 16 tokens, but row_length is 8"),
    ],
)
def test_a_job_that_cannot_run_says_why_before_it_starts(
    tmp_path: Path, settings: LoopSettings, tokens: list[int], workers: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_job(tmp_path, tokens, settings).check(workers)


def test_rows_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, [1, 2], msgspec.structs.replace(SETTINGS, row_length=64))
    pack([Document([1, 2])], 64, seed=0).save(Path(job.data))
    with pytest.raises(ValueError, match="init: context of 32 tokens is shorter than row_length 64"):
        job.check(1)


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"zero_stage": 4}, {"learning_rate": 0.0}, {"warmup_share": 1.0}, {"micro_rows": 0}]
)
def test_settings_out_of_range_are_named(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        LoopSettings(**{"steps": 1, "rows_per_step": 1, "learning_rate": 1.0, **change})


@given(st.integers(1, 64), st.integers(1, 9), st.integers(1, 4))
def test_a_worker_takes_exactly_its_share_in_micro_batches(share: int, micro_rows: int, workers: int) -> None:
    settings = LoopSettings(steps=1, rows_per_step=share * workers, learning_rate=1.0, micro_rows=micro_rows)
    rows, times = settings.micro_batches(workers)
    assert rows * times == share and rows <= micro_rows


def test_the_disk_that_is_estimated_holds_all_checkpoints_that_there_can_be() -> None:
    def per_parameter(**changes: int) -> int:
        return checkpoint_bytes(msgspec.structs.replace(SETTINGS, **changes))

    assert per_parameter() == 0
    assert per_parameter(checkpoint_every=5) == 3 * 12
    assert per_parameter(validate_every=5) == per_parameter(validate_every=5, checkpoint_every=5) == 4 * (12 + 4)


class FakeEngine:
    """A model of one weight, whose loss is it; three micro-batches are a step."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.module = SimpleNamespace(names=())
        self.optimizer = SimpleNamespace(param_groups=[{}])
        self.micro_steps = 0

    def __call__(self, step: int, **batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return torch.tensor(1.0), {}

    def backward(self, loss: torch.Tensor) -> None: ...

    def is_gradient_accumulation_boundary(self) -> bool:
        return self.micro_steps % 3 == 2

    def step(self) -> None:
        self.micro_steps += 1


def test_the_gradients_norm_is_taken_once_a_step_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def norm(engine: FakeEngine) -> torch.Tensor:
        taken.append(engine.micro_steps)
        return torch.tensor(1.0)

    monkeypatch.setattr(loop, "_plain_gradient_norm", norm)
    settings = msgspec.structs.replace(SETTINGS, rows_per_step=6, micro_rows=2)
    steps = loop.Steps(FakeEngine(), settings, pack([Document([1, 2, 3])] * 9, 16, seed=0), rank=0, workers=1)
    steps.take(0)
    steps.take(1)
    assert taken == [2, 5]


def test_the_log_is_cut_where_a_run_resumes_and_unfinished_lines_are_not_read(tmp_path: Path) -> None:
    output = str(tmp_path / "model")
    assert read_progress(output) is None
    log = ProgressLog(output, 10, 100, resumed_step=0)
    for step in (1, 2, 3):
        log.write(step, StepFigures(loss=4.0, learning_rate=0.1, gradient_norm=1.0))
    resumed = ProgressLog(output, 10, 100, resumed_step=2)
    newest = read_progress(output)
    assert newest is not None and (newest.step, newest.steps, newest.loss) == (2, 10, 4.0)
    line = resumed.write(3, StepFigures(loss=5.0, learning_rate=0.1, gradient_norm=1.0))
    with open(f"{output}.jsonl", "ab") as file:
        file.write(b'{"step": 4')
    assert read_progress(output) == line
    assert math.isfinite(line.tokens_per_second)
    ProgressLog(output, 10, 100, resumed_step=3)
    assert read_progress(output) == line, "a line that was cut off by a crash is no obstacle"
    ProgressLog(output, 10, 100, resumed_step=0)
    assert read_progress(output) is None
