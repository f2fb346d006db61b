"""The `distill` section of a recipe: who answers which prompts how, and what is kept of it."""

from __future__ import annotations

from typing import Any, Literal

from common.languages import language_name
from common.settings import Settings

Teacher = Literal["none", "top_k", "sampled"]


class EndpointSettings(Settings, frozen=True, kw_only=True):
    """A server that speaks OpenAI's completions API, such as vLLM, and serves the target."""

    base_url: str
    """Up to and with the version, such as ``http://localhost:8000/v1``."""
    model: str
    """The target's name there."""
    api_key_env: str | None = None
    """Environment variable that holds the API key; None: the server asks for none."""
    timeout_s: float = 120.0
    """Longest wait for one answer."""
    max_retries: int = 6
    """Further attempts for an answer, each after twice the pause of the one before (0.5 s to 8 s)."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, must be greater than 0")
        if self.max_retries < 0:
            raise ValueError(f"max_retries is {self.max_retries}, must not be negative")


class DistillSettings(Settings, frozen=True, kw_only=True):
    """The target answers training prompts; its answers are what the drafter is finetuned on."""

    prompts: int
    """Training prompts answered, each once a temperature."""
    temperatures: tuple[float, ...] = (0.0, 0.3, 0.7, 1.0)
    """Each prompt is answered at each of them."""
    max_tokens: int = 64
    """Upper bound on the tokens of an answer."""
    concurrency: int = 64
    """Answers in progress at the same time: in each engine, or at the endpoint."""
    seed: int = 0
    """Answer i is drawn with seed + i."""
    shard_answers: int = 512
    """Answers that are made, stored and, after an interruption, kept together."""
    answer_language: str | None = None
    """ISO 639-1 code; answers in another language are left out. None keeps all."""
    max_error_share: float = 0.01
    """Of a shard: with more errors the stage fails."""
    teacher: Teacher = "none"
    """What is stored of the target's law at every token of an answer, at temperature 1: "top_k", the probabilities of
    its likeliest tokens, or "sampled", draws from it, which are unbiased (arXiv 2503.16870)."""
    teacher_k: int = 16
    """Tokens stored a position."""
    actors: int = 1
    """Engines at work, each on a Ray actor; 1 without a GPU works in the stage's own process."""
    cpus_per_actor: int = 1
    """CPUs of each engine."""
    gpus_per_actor: float = 0.0
    """GPUs of each engine, or the share of one; 0 runs it on the CPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the target's weights in our engine."""
    endpoint: EndpointSettings | None = None
    """Answers come from here; None: from our own engine."""

    def __post_init__(self) -> None:
        for name in ("prompts", "max_tokens", "concurrency", "shard_answers", "teacher_k", "actors", "cpus_per_actor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError(f"temperatures are {list(self.temperatures)}, must be some, none of them negative")
        if not 0 <= self.max_error_share <= 1:
            raise ValueError(f"max_error_share is {self.max_error_share}, must be in [0, 1]")
        if self.gpus_per_actor < 0:
            raise ValueError(f"gpus_per_actor is {self.gpus_per_actor}, must not be negative")
        if self.endpoint is not None and self.on_actors:
            raise ValueError("endpoint is asked by one process: set concurrency, not actors or gpus_per_actor")
        if self.answer_language is not None:
            language_name(self.answer_language)

    @property
    def on_actors(self) -> bool:
        """Whether Ray actors do the work."""
        return self.actors > 1 or self.gpus_per_actor > 0

    @property
    def inputs(self) -> dict[str, Any]:
        """What the answers depend on: all but how many hands make them, and how patient they are."""
        values = self.without("actors", "cpus_per_actor", "gpus_per_actor", "max_error_share", "endpoint")
        served = self.endpoint and {"base_url": self.endpoint.base_url, "model": self.endpoint.model}
        return values | {"endpoint": served}


def estimate_bytes(settings: DistillSettings, prompts: int, mean_tokens: float) -> int:
    """Size of a language's answers on disk.

    Args:
        prompts: how many there are; `settings.prompts` bounds them.
        mean_tokens: of an answer; with `settings.max_tokens` the estimate is an upper bound of the teacher's share.
    """
    # JSON: an id and its comma for each token of the answer and of a prompt about as long, and the field names.
    answer = 6 * 2 * mean_tokens + 60
    law = 0 if settings.teacher == "none" else law_bytes(settings.teacher_k) * mean_tokens
    return round(min(prompts, settings.prompts) * len(settings.temperatures) * (answer + law))


def law_bytes(k: int) -> int:
    """Of one position: an int32 id and a float16 weight for each stored token."""
    return k * (4 + 2)
