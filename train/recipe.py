"""The `train` section of a configuration: what is trained, on what, and how."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from common.settings import Settings, convert
from train.corpus import CorpusSettings
from train.distillation.settings import DistillSettings
from train.job import LoopSettings
from train.shapes import DrafterInit, ModelShape, NgramSettings, VocabularySettings


class WorkerSettings(Settings, frozen=True, kw_only=True):
    """What a training run gets."""

    workers: int = 1
    """Processes of a run, each with its share of the rows."""
    cpus_per_worker: int = 1
    """CPUs that Ray counts for each, and its threads."""
    use_gpu: bool = False
    """One GPU for each worker."""
    validation_gpus: float = 0.0
    """GPUs, or the share of one, that judge checkpoints; 0: the CPU does."""


class TargetSettings(Settings, frozen=True, kw_only=True):
    """A target made from scratch: for the embedded default, which must stand without a download."""

    shape: ModelShape
    vocab_size: int
    """Tokens of the tokenizer that is made for it."""
    context_length: int
    """Tokens of its longest text."""
    chat_template: str
    """Jinja template that its tokenizer gets."""
    loop: LoopSettings
    workers: WorkerSettings = WorkerSettings()

    @property
    def inputs(self) -> dict[str, Any]:
        """What the target depends on."""
        return self.without("loop", "workers") | {"loop": self.loop.inputs}


class EvaluateSettings(Settings, frozen=True, kw_only=True):
    """Speculative decoding of held-out prompts, in process."""

    prompts: int
    """Held-out prompts that are decoded, at most."""
    draft_length: int = 4
    """Tokens drafted a round."""
    temperatures: tuple[float, ...] = (0.0, 1.0)
    """All prompts are decoded at each of them."""
    max_tokens: int = 64
    """Upper bound on the tokens of an answer."""
    concurrency: int = 32
    """Texts in progress at the same time, where no time is taken."""
    validation_prompts: int = 64
    """Of the validation text, for judging checkpoints while training goes on."""
    speed_prompts: int = 32
    """As many of the prompts are also decoded plainly, to compare the time."""
    speed_concurrency: int = 1
    """Texts in progress while the time is taken: one, as for a single user."""
    gpus: float = 0.0
    """GPUs, or the share of one, for each evaluation; 0: the CPU does it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights of target and drafters, here and where checkpoints are judged."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What was asked for: Ray does not hide the GPUs from a task that has asked for none."""
        return "cuda" if self.gpus else "cpu"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if name not in ("temperatures", "gpus", "dtype") and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.temperatures:
            raise ValueError("temperatures must name at least one")
        if self.gpus < 0:
            raise ValueError(f"gpus is {self.gpus}, must not be negative")

    @property
    def inputs(self) -> dict[str, Any]:
        """What an evaluation depends on; the time that is taken is a GPU's or a CPU's, whatever the share."""
        return self.without("concurrency", "validation_prompts", "gpus") | {"gpu": self.gpus > 0}

    @property
    def validation_inputs(self) -> dict[str, Any]:
        """What the choice of the best checkpoint depends on."""
        return {name: getattr(self, name) for name in ("validation_prompts", "draft_length", "max_tokens", "dtype")}


class RefreshSettings(Settings, frozen=True, kw_only=True):
    """The drafter's own answers to training prompts."""

    prompts: int
    """Training prompts that the drafter answers, at most."""
    max_tokens: int = 128
    """Upper bound on the tokens of an answer."""
    temperature: float = 1.0
    """1 writes by the drafter's own law, which is where it will have to be accepted."""
    concurrency: int = 32
    """Answers in progress at the same time."""
    seed: int = 0
    """Answer i is drawn with seed + i."""

    def __post_init__(self) -> None:
        for name in ("prompts", "max_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature is {self.temperature}, must be between 0 and 100")

    @property
    def inputs(self) -> dict[str, Any]:
        """What the answers depend on."""
        return self.without("concurrency")


class RefreshStage(Settings, frozen=True, kw_only=True):
    """A last training, on the drafter's own texts with the target's law as the teacher; see train.refresh."""

    answers: RefreshSettings
    loop: LoopSettings

    def __post_init__(self) -> None:
        if self.loop.objective.teacher != "online":
            raise ValueError("loop.objective.teacher must be `online`: nobody else knows what follows on such texts")
        if "ce" in self.loop.objective.names:
            raise ValueError("loop.objective.terms: ce would teach the drafter its own tokens")


class PublishSettings(Settings, frozen=True, kw_only=True):
    """What a drafter must be worth to be published; `--force` publishes it nevertheless."""

    require_speedup: float | None = 1.0
    """Time of plain decoding over time of speculative decoding. A drafter is refused if it is certainly below, see
    train.gate, at every temperature: where it does not pay, the server decodes plainly anyway. None: not looked at."""
    keep_best: bool = True
    """Refuse a drafter whose mean acceptance length, over the temperatures, is below that of the promoted one."""


class Variant(Settings, frozen=True, kw_only=True):
    """Another finetuning, to be measured beside the one that is published."""

    loop: dict[str, Any] = msgspec.field(default_factory=dict)
    """The settings in which it differs from `finetune`, as in ``{objective: {terms: {ce: 1.0}}}``."""
    pretrained: bool = True
    """False: it begins with an untrained drafter."""
    answers: int | None = None
    """The first so many of the target's answers are learned from; None: all."""


class TrafficSettings(Settings, frozen=True, kw_only=True):
    """What is made of served prompts (`--from-traffic`); see train.traffic_plan."""

    min_prompts: int = 200
    """Fewer distinct ones than this leave a language's drafter as it is."""
    held_out_share: float = 0.2
    """Of the prompts, to judge by; `evaluate.prompts` of them at most are asked."""
    loop: dict[str, Any] = msgspec.field(default_factory=dict)
    """The settings in which this finetuning differs from `finetune`, such as fewer `steps` for little traffic."""
    seed: int = 0
    """Of the choice of prompts that are held out."""

    def __post_init__(self) -> None:
        if self.min_prompts < 2:
            raise ValueError(f"min_prompts is {self.min_prompts}, must be at least 2")
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}, must be between 0 and 1")


class Recipe(Settings, frozen=True, kw_only=True):
    """How drafters are made: the same way for every language."""

    corpus: CorpusSettings
    prompt: str
    """The target's prompt for a sentence; {language} is its name in English, {source} the sentence."""
    drafter: ModelShape
    pretrain: LoopSettings
    """On the language's own text."""
    distill: DistillSettings
    finetune: LoopSettings
    """On the target's answers."""
    evaluate: EvaluateSettings
    initial: DrafterInit = DrafterInit()
    """What the drafter's training begins with."""
    vocabulary: VocabularySettings | None = None
    """How much of the vocabulary the drafter proposes; None: all of it."""
    refresh: RefreshStage | None = None
    """None: the finetuned drafter is published."""
    ngram: NgramSettings | None = None
    """Also make an n-gram drafter of each language, published as ``<language>-ngram``."""
    target: TargetSettings | None = None
    """None: the target is given (`--target`)."""
    generic: bool = False
    """Also train a drafter of the same shape on English text only, as a baseline for every language."""
    generalist: bool = False
    """Also train and publish one drafter for all languages, of the specialists' shape and steps."""
    ablations: bool = False
    """Also measure the drafter that was only pretrained, and make and measure one that is only finetuned."""
    variants: dict[str, Variant] = msgspec.field(default_factory=dict)
    """Other finetunings, by name."""
    publish: PublishSettings = PublishSettings()
    traffic: TrafficSettings = TrafficSettings()
    workers: WorkerSettings = WorkerSettings()
    """Of each language's run."""

    def __post_init__(self) -> None:
        if "{source}" not in self.prompt:
            raise ValueError("prompt must contain {source}")
        if self.pretrain.objective.teacher == "stored":
            raise ValueError("pretrain.objective.teacher must not be `stored`: laws are stored of answers only")
        if self.finetune.objective.teacher == "stored" and self.distill.teacher == "none":
            raise ValueError("finetune.objective.teacher is `stored`, but distill.teacher is `none`: nothing is stored")
        for name in self.variants:
            if not name.isidentifier() or name in ("alone", "traffic"):
                raise ValueError(f"`{name}` cannot name a variant: letters, digits and `_`, not `alone` or `traffic`")
            self.finetuning(name)
        assert self.traffic_finetuning

    def finetuning(self, variant: str) -> LoopSettings:
        """`finetune` with the differences of a variant. Raises SettingsError naming the setting."""
        changed = _changed(self.finetune, self.variants[variant].loop)
        return convert(changed, LoopSettings, where=f"variants.{variant}.loop")

    @property
    def traffic_finetuning(self) -> LoopSettings:
        """The same, with the differences of `traffic`."""
        return convert(_changed(self.finetune, self.traffic.loop), LoopSettings, where="traffic.loop")


def _changed(settings: Settings, changes: dict[str, Any]) -> dict[str, Any]:
    """As built-in types. A section is changed setting by setting, everything else is replaced."""
    raw = msgspec.to_builtins(settings)
    for name, value in changes.items():
        current = getattr(settings, name, None)
        if isinstance(current, Settings) and isinstance(value, dict):
            value = _changed(current, value)
        raw[name] = value
    return raw
