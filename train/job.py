"""What one training run is: a model to start from, rows to learn, and how."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.settings import Settings
from train.objectives.settings import ObjectiveSettings
from train.packing import PackedRows


class LoopSettings(Settings, frozen=True, kw_only=True):
    """One training, of a drafter or of a target."""

    steps: int
    """Optimizer steps."""
    rows_per_step: int
    """Rows of each optimizer step, over all workers."""
    row_length: int = 256
    """Tokens of a row."""
    learning_rate: float
    """At its peak: reached after the warm-up, then falling to 0 on a cosine."""
    warmup_share: float = 0.03
    """Share of the steps during which the learning rate rises."""
    weight_decay: float = 0.0
    """AdamW's."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    zero_stage: int = 0
    """DeepSpeed ZeRO: 0 replicates everything, 1 shards the optimizer, 2 also gradients, 3 also weights."""
    micro_rows: int = 8
    """Most rows that a worker takes through the model at once. With another number a run is resumed, too, but then its
    weights are the undisturbed run's up to rounding only."""
    objective: ObjectiveSettings = ObjectiveSettings()
    checkpoint_every: int = 0
    """Steps between checkpoints to resume from; 0: none, except when one of several workers is told to stop."""
    validate_every: int = 0
    """Steps between checkpoints that are judged by speculative decoding, beside the training; the last is, too, and
    the best one becomes the trained model. While one is being judged others are only saved. 0: none is judged, and the
    last weights are the model."""
    log_every: int = 10
    """Steps between lines of the progress log."""
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Told what TensorBoard is told; the user installs their packages."""
    peak_tflops: float | None = None
    """Floating-point operations that a worker's processor can do per second, in 10^12, at the precision trained in,
    as its maker says: what the share that is used (MFU) is of. None: not stated, and no share told."""
    seed: int = 0
    """Of the order of the rows, of dropout and of a new model's weights."""

    def __post_init__(self) -> None:
        for name in ("steps", "rows_per_step", "micro_rows", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("checkpoint_every", "validate_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError(f"peak_tflops is {self.peak_tflops}, must be greater than 0")
        if not 0 <= self.zero_stage <= 3:
            raise ValueError(f"zero_stage is {self.zero_stage}, must be 0, 1, 2 or 3")
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ValueError("learning_rate and clip must be greater than 0")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share is {self.warmup_share}, must be in [0, 1)")

    @property
    def inputs(self) -> dict[str, Any]:
        """What the trained model depends on: not what is told or kept on the way.

        Nor `micro_rows`, by which sums are rounded and dropout is drawn otherwise, as by the number of workers; it is
        what one changes when the memory was too small. So is `zero_stage`, but no other one can resume its checkpoints.
        """
        return self.without("micro_rows", "checkpoint_every", "log_every", "trackers", "peak_tflops")

    def resumable(self, workers: int) -> bool:
        """Whether a run with so many workers leaves checkpoints; one that does not need not be able to."""
        return workers > 1 or self.checkpoint_every > 0 or self.validate_every > 0

    def micro_batches(self, workers: int) -> tuple[int, int]:
        """How a worker takes its share of a step: rows at once, and how many times.

        Raises ValueError if the rows of a step cannot be shared out evenly among the workers.
        """
        share, rest = divmod(self.rows_per_step, workers)
        if rest:
            raise ValueError(f"rows_per_step is {self.rows_per_step}, must be a multiple of the {workers} workers")
        rows = max(rows for rows in range(1, min(self.micro_rows, share) + 1) if share % rows == 0)
        return rows, share // rows


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """How checkpoints are judged: by real speculative decoding of held-out prompts, at temperatures 0 and 1."""

    target: str
    """Folder of the model that verifies."""
    prompts: str
    """File of prompts, see `train.validation.write_prompts`."""
    draft_length: int = 4
    max_tokens: int = 64
    concurrency: int = 32
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True):
    """One model to train; the files are on storage that every machine of the cluster sees."""

    name: str
    """Names the run: repeated with the same storage it resumes, so another run needs another name."""
    init: str
    """Folder of the Hugging Face model to start from."""
    data: str
    """Folder of PackedRows."""
    output: str
    """Folder for the trained model; it appears complete or not at all. The log goes to ``<output>.jsonl``."""
    settings: LoopSettings
    teacher: str | None = None
    """Folder of the model whose law is learned, where the objective asks for one `online`."""
    validation: Validation | None = None
    """Needed where `validate_every` is set."""

    def check(self, workers: int) -> None:
        """Find what would stop the run, before it starts. Raises ValueError naming the file or setting."""
        self.settings.micro_batches(workers)
        self._check_parts()
        config = _read_config(self.init, "init")
        rows = PackedRows.load(Path(self.data))
        length = rows.input_ids.shape[1]
        if length != self.settings.row_length:
            raise ValueError(f"{self.data}: rows of {length} tokens, but row_length is {self.settings.row_length}")
        if self.settings.objective.teacher == "stored" and rows.teacher_ids is None:
            raise ValueError(f"{self.data}: objective.teacher is stored, but these rows hold no teacher's law")
        context = config.get("max_position_embeddings", length)
        if length > context:
            raise ValueError(f"{self.init}: context of {context} tokens is shorter than row_length {length}")
        largest, vocabulary = int(rows.input_ids.max()), config.get("vocab_size")
        if vocabulary is not None and largest >= vocabulary:
            raise ValueError(f"{self.data}: token id {largest}, but {self.init} has a vocabulary of {vocabulary}")

    def _check_parts(self) -> None:
        """What settings ask for beside the rows and the model."""
        if self.settings.objective.teacher == "online" and self.teacher is None:
            raise ValueError("objective.teacher is online, but the job has no teacher")
        if self.settings.validate_every and self.validation is None:
            raise ValueError(f"validate_every is {self.settings.validate_every}, but the job has no validation")
        if self.validation is not None:
            _read_config(self.validation.target, "validation.target")
            if not Path(self.validation.prompts).is_file():
                raise ValueError(f"{self.validation.prompts}: no such file of held-out prompts")
        for package in self.settings.trackers:
            if find_spec(package) is None:
                raise ValueError(f"trackers: the package {package} is not installed")


def _read_config(folder: str, field: str) -> dict[str, Any]:
    config_file = Path(folder, "config.json")
    try:
        return dict(json.loads(config_file.read_text(encoding="utf8")))
    except FileNotFoundError:
        raise ValueError(f"{config_file}: no such file; `{field}` must be a Hugging Face model folder") from None
