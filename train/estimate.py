"""How long a step may take and how much disk it fills: rough, from sizes alone, to be told before anything is done."""

from __future__ import annotations

import math
import time

import msgspec
import torch

from common.models import load_config
from train.distillation.settings import estimate_bytes
from train.job import LoopSettings
from train.plan import Plan
from train.progress import read_progress
from train.recipe import Recipe
from train.shapes import ModelShape
from train.step import Step, Training
from train.validation import TEMPERATURES

UTILISATION = 0.25
"""Share of the speed of a large matrix product that training a small model reaches."""
DECODING_UTILISATION = 0.05
"""The same of decoding, where the matrices are thin."""
OPTIMIZER_BYTES = 12
"""Of a parameter, in a checkpoint: itself and AdamW's two moments, in float32."""
CHECKPOINTS = 3
"""On disk at most, of a run that is to be resumed: the newest two, and one that is being written."""
JUDGED_CHECKPOINTS = 4
"""The same, of a run whose checkpoints are judged: the best, the newest, one still to be judged, and one being written.
With each is the model by itself."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    tokens: int | None = None
    """Trained on, or decoded at most; None where that is not what the work is."""
    disk_bytes: int = 0
    seconds: float | None = None
    """None where it cannot be told: reading text, and GPUs that have not been seen at work."""


class Estimator:
    """Of one plan's steps. Making one measures a matrix product on this machine, for a tenth of a second."""

    def __init__(self, recipe: Recipe, plan: Plan) -> None:
        self._recipe = recipe
        made = recipe.target
        if made is not None:
            self._vocab_size, self._target = made.vocab_size, parameters(made.shape, made.vocab_size)
        else:
            config = load_config(plan.target).get_text_config()
            shape = ModelShape(
                hidden_size=config.hidden_size,
                num_layers=config.num_hidden_layers,
                num_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
            )
            self._vocab_size, self._target = config.vocab_size, parameters(shape, config.vocab_size)
        self._operations_per_s = matrix_speed()

    def estimate(self, step: Step) -> Estimate:
        match step.kind:
            case "distill":
                settings = self._recipe.distill
                tokens = settings.prompts * len(settings.temperatures) * settings.max_tokens
                disk = estimate_bytes(settings, settings.prompts, settings.max_tokens)
                return Estimate(
                    tokens=tokens, disk_bytes=disk, seconds=None if settings.on_actors else self._decoding(tokens)
                )
            case "evaluate":
                evaluate = self._recipe.evaluate
                texts = (evaluate.prompts + 2 * evaluate.speed_prompts) * len(evaluate.temperatures)
                tokens = texts * evaluate.max_tokens
                return Estimate(tokens=tokens, seconds=None if evaluate.gpus else self._decoding(tokens))
            case "publish":
                return Estimate(disk_bytes=4 * self._drafter)
            case _:
                return Estimate() if step.training is None else self._training(step, step.training)

    @property
    def _drafter(self) -> int:
        return parameters(self._recipe.drafter, self._vocab_size)

    def _training(self, step: Step, training: Training) -> Estimate:
        loop = training.loop
        size = self._target if step.owner == "target" else self._drafter
        tokens = loop.steps * loop.rows_per_step * loop.row_length
        disk = 2 * 4 * size + checkpoint_bytes(loop) * size
        log = read_progress(step.stage.folder / "model")
        speed = self._training_speed(training, size) if log is None else log.tokens_per_second
        seconds = None if speed is None else tokens / speed + self._judging(training)
        return Estimate(tokens=tokens, disk_bytes=disk, seconds=seconds)

    def _training_speed(self, training: Training, size: int) -> float | None:
        """Tokens a second of a model of `size` parameters; None on GPUs."""
        workers = training.workers
        if workers.use_gpu:
            return None
        # Forward and backward; of a teacher that runs along, forward alone.
        teacher = 2 * self._target if training.loop.objective.teacher == "online" else 0
        speed = self._operations_per_s * UTILISATION * workers.workers * workers.cpus_per_worker
        return speed / (6 * size + teacher)

    def _judging(self, training: Training) -> float:
        """Seconds for all checkpoints, at most; none where a GPU does it, beside the training."""
        loop, evaluate = training.loop, training.evaluate
        if not loop.validate_every or training.workers.validation_gpus:
            return 0.0
        checkpoints = math.ceil(loop.steps / loop.validate_every)
        return self._decoding(checkpoints * evaluate.validation_prompts * len(TEMPERATURES) * evaluate.max_tokens)

    def _decoding(self, tokens: int) -> float:
        """Seconds."""
        return 2 * self._target * tokens / (self._operations_per_s * DECODING_UTILISATION)


def checkpoint_bytes(loop: LoopSettings) -> int:
    """Of a parameter, in all checkpoints."""
    if loop.validate_every:
        return JUDGED_CHECKPOINTS * (OPTIMIZER_BYTES + 4)
    return CHECKPOINTS * OPTIMIZER_BYTES if loop.checkpoint_every else 0


def parameters(shape: ModelShape, vocab_size: int) -> int:
    """Of a Llama-shaped model with as many key-value heads as heads, and one matrix for input and output."""
    layer = shape.hidden_size * (4 * shape.hidden_size + 3 * shape.intermediate_size + 2)
    return (vocab_size + 1) * shape.hidden_size + shape.num_layers * layer


def matrix_speed(size: int = 512, repeats: int = 8) -> float:
    """Floating-point operations a second of one thread, in a matrix product."""
    matrix, threads = torch.ones(size, size), torch.get_num_threads()
    torch.set_num_threads(1)
    matrix @ matrix
    started = time.perf_counter()
    for _ in range(repeats):
        matrix @ matrix
    elapsed = time.perf_counter() - started
    torch.set_num_threads(threads)
    return repeats * 2 * size**3 / elapsed
