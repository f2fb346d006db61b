"""What our training loop costs beside a plain PyTorch loop; how full packed rows are; how much memory the loss takes.

Both loops train the same model on the same rows in the same worker process, block by block in turns. The plain one is
what one would write without polydraft: the model's own logits at every position, AdamW, clipping, a line of loss.
"""

from __future__ import annotations

import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch.nn.functional import cross_entropy

from cluster.bench.plain_loop import PlainLoop
from cluster.bench.report import report
from cluster.run import Run, start_ray
from common.models import load_config, load_tokenizer
from train.documents import Prompter
from train.evaluation.paired import Timed, speed, speed_ratio
from train.initial import save_initial_model, train_tokenizer
from train.job import LoopSettings, TrainingJob
from train.loop import Steps, make_engine, make_module, run_steps
from train.objectives.objective import Objective
from train.objectives.settings import ObjectiveSettings
from train.packing import pack
from train.pair import Pair
from train.phrasebook import pairs as phrasebook_pairs
from train.rows import PackedRows
from train.run import Resources, worker_environment
from train.sources import read_sources
from train.watching.reporter import Reporter
from train.watching.utilisation import flops_per_token, peak_memory_bytes


def main(
    run: Run, data: str, pairs: int, row_length: int, blocks: int, steps: int, positions: int, vocabulary: int
) -> None:
    """Measure and report, on the pretraining of the first of the run's languages."""
    start_ray()
    use_gpu = run.config.train.workers.use_gpu
    with tempfile.TemporaryDirectory() as name:
        job = _prepare(run, data, pairs, row_length, Path(name))
        turns = _train(job, blocks, steps, name, use_gpu=use_gpu)
        padding = PackedRows.load(Path(job.data)).report.padding_share
        width = load_config(job.init).hidden_size
    chunked, full = (_loss_peak(kind, positions, vocabulary, width, use_gpu=use_gpu) for kind in ("chunked", "full"))
    ratio = speed_ratio(turns)
    ours, plain = zip(*turns, strict=True)
    report(
        f"training: {len(turns)} blocks of {steps} steps; loss: {positions} positions, {vocabulary} token ids",
        ["", "polydraft", "plain PyTorch", "ratio"],
        [
            ["tokens/s", f"{speed(ours):,.0f}", f"{speed(plain):,.0f}", str(ratio)],
            ["peak memory of the loss, MB", f"{chunked / 1e6:.0f}", f"{full / 1e6:.0f}", f"{chunked / full:.3f}"],
            ["padding", f"{padding:.2%}", "", ""],
        ],
        {
            "tokens_per_s_ratio": ratio.value,
            "tokens_per_s_ratio_interval": [ratio.low, ratio.high],
            "padding_share": round(padding, 4),
            "loss_peak_ratio": round(chunked / full, 4),
        },
    )


def _prepare(run: Run, data: str, pairs: int, row_length: int, folder: Path) -> TrainingJob:
    """An initial drafter and its rows, as `polydraft train` would make them; the phrasebook's without `data`."""
    recipe, language = run.config.train, run.config.languages[0]
    source = read_sources(recipe.corpus.train, language, data) if data else _phrasebook(language, pairs)
    text = list(islice(source, pairs))
    if run.given_target is not None:
        tokenizer, config = load_tokenizer(run.given_target), load_config(run.given_target).get_text_config()
        vocab_size, context = config.vocab_size, config.max_position_embeddings
    else:
        run.check()
        assert recipe.target is not None, "run.check lets no such run through"
        tokenizer = train_tokenizer((side for pair in text for side in (pair.source, pair.english)), recipe.target)
        vocab_size, context = recipe.target.vocab_size, recipe.target.context_length
    settings = msgspec.structs.replace(recipe.pretrain, row_length=row_length)
    rows = pack(Prompter(tokenizer, recipe.prompt, language).translations(text), settings.row_length, settings.seed)
    rows.save(folder / "rows")
    save_initial_model(
        folder / "initial", recipe.drafter, tokenizer, vocab_size=vocab_size, context_length=context, seed=settings.seed
    )
    return TrainingJob(
        name="bench",
        init=str(folder / "initial"),
        data=str(folder / "rows"),
        output=str(folder / "model"),
        settings=settings,
    )


def _phrasebook(language: str, pairs: int) -> list[Pair]:
    return [Pair(source, english) for source, english in phrasebook_pairs(language, pairs)]


def _train(job: TrainingJob, blocks: int, steps: int, storage: str, *, use_gpu: bool) -> list[tuple[Timed, Timed]]:
    resources = Resources(storage=storage, use_gpu=use_gpu)
    trainer = TorchTrainer(
        _take_turns,
        train_loop_config={"job": msgspec.to_builtins(job), "blocks": blocks, "steps": steps},
        scaling_config=ScalingConfig(num_workers=1, use_gpu=use_gpu),
        run_config=RunConfig(
            name="bench", storage_path=storage, worker_runtime_env={"env_vars": worker_environment(resources)}
        ),
    )
    return msgspec.convert(trainer.fit().return_value, list[tuple[Timed, Timed]])


def _take_turns(config: dict[str, Any]) -> list[Any]:
    """In the worker: (ours, plain) of each block. Which goes first alternates; the first block only warms up."""
    job = msgspec.convert(config["job"], TrainingJob)
    rows = PackedRows.load(Path(job.data))
    ours = OurLoop(job, rows)
    ways: list[OurLoop | PlainLoop] = [ours, PlainLoop(job, rows, ours.device.type)]
    turns = []
    for block in range(config["blocks"] + 1):
        first, until = block * config["steps"], (block + 1) * config["steps"]
        timed = [_time(ways[way], first, until, job.settings) for way in ((0, 1) if block % 2 else (1, 0))]
        turns.append(tuple(timed if block % 2 else timed[::-1]))
    return list(msgspec.to_builtins(turns[1:]))


def _time(loop: OurLoop | PlainLoop, first: int, until: int, settings: LoopSettings) -> Timed:
    began = time.perf_counter()
    loop.run(first, until)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    tokens = (until - first) * settings.rows_per_step * settings.row_length
    return Timed(tokens=tokens, seconds=time.perf_counter() - began)


class OurLoop:
    """DeepSpeed's engine, with the log and the trackers of a real run."""

    def __init__(self, job: TrainingJob, rows: PackedRows) -> None:
        settings = job.settings
        module = make_module(job)
        flops = flops_per_token(module.model, settings.row_length)
        self._job, self._engine = job, make_engine(module, settings, workers=1)
        self.device: torch.device = self._engine.device
        self._steps = Steps(self._engine, settings, rows, rank=0, workers=1)
        self._reporter = Reporter(job, rows, flops, workers=1, resumed_step=0)

    def run(self, first: int, until: int) -> None:
        settings = msgspec.structs.replace(self._job.settings, steps=until)
        job = msgspec.structs.replace(self._job, settings=settings)
        run_steps(self._engine, job, self._steps, self._reporter, first)


def _loss_peak(kind: str, positions: int, vocabulary: int, width: int, *, use_gpu: bool) -> int:
    """Bytes beyond its inputs that the loss takes, forward and backward; in a process that has done nothing else."""
    task = ray.remote(num_cpus=1, num_gpus=int(use_gpu), max_calls=1)(_measure_loss)
    return int(ray.get(task.remote(kind, positions, vocabulary, width, torch.device("cuda" if use_gpu else "cpu"))))


def _measure_loss(kind: str, positions: int, vocabulary: int, width: int, device: torch.device) -> int:
    states = torch.randn(positions, width, device=device, requires_grad=True)
    weight = torch.randn(vocabulary, width, device=device, requires_grad=True)
    tokens = torch.randint(vocabulary, (positions,), device=device)
    before = peak_memory_bytes(device)
    if kind == "chunked":
        loss, _ = Objective(ObjectiveSettings())(states, weight, tokens, None, 0, 1)
    else:
        loss = cross_entropy(states @ weight.T, tokens, reduction="sum")
    loss.backward()
    return peak_memory_bytes(device) - before
