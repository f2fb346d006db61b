"""Running an n-gram model as if it were a network: the tokens before a position in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.engine.batch import Feed
from common.engine.cache import BlockPool
from common.engine.sequence import CachedSequence
from common.ngram_model import NOTHING, NgramModel


class NgramRunner:
    """Implements `runner.Runner`. There are no keys and values: its pool lends memory that nobody allocated.

    Args:
        kv_tokens: bounds the texts in progress, as for a network, so that settings mean the same for every drafter.
    """

    def __init__(self, model: NgramModel, *, kv_tokens: int) -> None:
        self._model = model
        self._length = model.config.order - 1
        self.device: torch.device = model.keys.device
        self.vocabulary: int = model.config.vocab_size
        self.context_length: int = model.config.max_position_embeddings
        self.pool = BlockPool(kv_tokens)

    def begin(self) -> CachedSequence:
        """See `Runner.begin`."""
        return CachedSequence(self.pool)

    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """See `Runner.forward`; tokens whose logits are not wanted cost nothing."""
        for feed in feeds:
            feed.sequence.cached.extend(feed.tokens)
        contexts = [context for feed in feeds for context in self._contexts(feed)]
        if not contexts:
            return [torch.empty(0, self.vocabulary)] * len(feeds)
        logits = self._model(torch.tensor(contexts, device=self.device))
        return list(logits.split([feed.wanted for feed in feeds]))

    def _contexts(self, feed: Feed) -> list[list[int]]:
        """The tokens before each wanted position, the latest first."""
        tokens, length = feed.sequence.cached, self._length
        ends = range(len(tokens) - feed.wanted + 1, len(tokens) + 1)
        latest_first = (tokens[max(0, end - length) : end][::-1] for end in ends)
        return [context + [NOTHING] * (length - len(context)) for context in latest_first]
