"""The `train` section of a configuration: what is trained, on what, and how."""

from __future__ import annotations

from common.settings import Settings
from train.corpus import CorpusSettings
from train.job import LoopSettings


class ModelShape(Settings, frozen=True, kw_only=True):
    """A Llama-shaped decoder, with the target's vocabulary and context."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")


class WorkerSettings(Settings, frozen=True, kw_only=True):
    """What a training run gets."""

    workers: int = 1
    cpus_per_worker: int = 1
    use_gpu: bool = False


class TargetSettings(Settings, frozen=True, kw_only=True):
    """A target made from scratch: for the embedded default, which must stand without a download."""

    shape: ModelShape
    vocab_size: int
    context_length: int
    chat_template: str
    loop: LoopSettings
    workers: WorkerSettings = WorkerSettings()


class DistillSettings(Settings, frozen=True, kw_only=True):
    """The target answers training prompts; its answers are what the drafter is finetuned on."""

    prompts: int
    """Training prompts answered, each once a temperature."""
    temperatures: tuple[float, ...] = (0.0, 0.3, 0.7, 1.0)
    max_tokens: int = 64
    concurrency: int = 64
    seed: int = 0


class EvaluateSettings(Settings, frozen=True, kw_only=True):
    """Speculative decoding of held-out prompts, in process."""

    prompts: int
    draft_length: int = 4
    temperatures: tuple[float, ...] = (0.0, 1.0)
    max_tokens: int = 64
    concurrency: int = 32


class Recipe(Settings, frozen=True, kw_only=True):
    corpus: CorpusSettings
    prompt: str
    """The target's prompt for a sentence; {language} is its name in English, {source} the sentence."""
    drafter: ModelShape
    pretrain: LoopSettings
    distill: DistillSettings
    finetune: LoopSettings
    evaluate: EvaluateSettings
    target: TargetSettings | None = None
    """None: the target is given (`--target`)."""
    generic: bool = False
    """Also train a drafter of the same shape on English text only, as a baseline for every language."""
    workers: WorkerSettings = WorkerSettings()
    """Of each language's run."""

    def __post_init__(self) -> None:
        if "{source}" not in self.prompt:
            raise ValueError("prompt must contain {source}")
