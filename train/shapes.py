"""What a drafter is before training: its shape, its weights, its vocabulary; or a table of n-grams."""

from __future__ import annotations

from typing import Literal

from common.settings import Settings


class ModelShape(Settings, frozen=True, kw_only=True):
    """A Llama-shaped decoder, with the target's vocabulary and context."""

    hidden_size: int
    """Width of the layers, a multiple of `num_heads`."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Attention heads of each layer."""
    intermediate_size: int
    """Width of the feed-forward part of a layer."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")


class DrafterInit(Settings, frozen=True, kw_only=True):
    """Random weights, those of a checkpoint, or some of the target's layers.

    Fewer layers of the target, without training, are poor; with it they are better than random ones (Xia et al. 2024,
    "Sheared LLaMA", arXiv 2310.06694; Men et al. 2024, "ShortGPT", arXiv 2403.03853).
    """

    start: Literal["random", "checkpoint", "prune"] = "random"
    """What the first weights are."""
    checkpoint: str | None = None
    """Folder or hub id of a causal language model with the target's tokenizer."""
    layers: tuple[int, ...] | None = None
    """Which of the target's layers to keep, from 0; None spreads the shape's `num_layers` evenly, first and last one
    included."""

    def __post_init__(self) -> None:
        if (self.checkpoint is not None) != (self.start == "checkpoint"):
            raise ValueError(f"checkpoint belongs to `start: checkpoint`, and start is {self.start}")
        if self.layers is not None and self.start != "prune":
            raise ValueError(f"layers belong to `start: prune`, and start is {self.start}")
        if self.layers is not None and (not self.layers or list(self.layers) != sorted({*self.layers})):
            raise ValueError(f"layers are {list(self.layers)}, must be ascending, each once")


class VocabularySettings(Settings, frozen=True, kw_only=True):
    """How much of the vocabulary a drafter proposes: so many ids, or as many as make up that share of its text."""

    size: int | None = None
    """So many ids, the most frequent ones."""
    coverage: float | None = None
    """Share of the training tokens, up to 1."""

    def __post_init__(self) -> None:
        if (self.size is None) == (self.coverage is None):
            raise ValueError("vocabulary needs a size or a coverage, and not both")
        if self.size is not None and self.size < 1:
            raise ValueError(f"vocabulary size is {self.size}, must be at least 1")
        if self.coverage is not None and not 0.0 < self.coverage <= 1.0:
            raise ValueError(f"vocabulary coverage is {self.coverage}, must be in (0, 1]")


class NgramSettings(Settings, frozen=True, kw_only=True):
    """How large an n-gram drafter is."""

    order: int = 3
    """Tokens of the longest n-gram. Longer ones draft worse at temperature 0: what a corpus says once after four tokens
    is seldom what a model finds likeliest."""
    max_megabytes: float = 3.0
    """Size of the contexts and their continuations; the most useful ones are kept."""

    def __post_init__(self) -> None:
        if self.order < 2:
            raise ValueError(f"order is {self.order}, must be at least 2")
        if self.max_megabytes <= 0:
            raise ValueError(f"max_megabytes is {self.max_megabytes}, must be positive")
