"""Running a model over packed steps: sequences in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.engine.batch import Feed, Span
from common.engine.cache import BlockPool
from common.engine.compatibility import check_logits
from common.engine.forward_pass import ForwardPass
from common.engine.sequence import CachedSequence


class Runner(Protocol):
    """What an engine runs."""

    vocabulary: int
    """Ids that a text can hold, and columns of the logits."""
    context_length: int
    pool: BlockPool

    def begin(self) -> CachedSequence:
        """An empty sequence; it has no memory yet."""

    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """Run one step. Each feed's sequence has room for its tokens; afterwards they are cached.

        Returns:
            Per feed, the logits [wanted, V] of its last tokens.
        """


class ModelRunner:
    """A decoder with its cache. Not thread-safe: one thread runs it.

    Args:
        model: see `ForwardPass`.
        kv_tokens: the memory budget, in tokens that can be cached at the same time.
        compiled: see `ForwardPass`.
        tell: called with what each forward pass is about to run; the other ranks of a model run it too, see `ranks`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        kv_tokens: int,
        compiled: bool = False,
        tell: Callable[[Sequence[Span]], object] = lambda spans: None,
    ) -> None:
        self.pool = BlockPool(kv_tokens)
        self._pass = ForwardPass(model, num_blocks=self.pool.num_blocks, compiled=compiled)
        self._tell = tell
        self._name = model.config.name_or_path
        self.device: torch.device = self._pass.device
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.context_length: int = model.config.get_text_config().max_position_embeddings
        self._try()

    def begin(self) -> CachedSequence:
        """See `Runner.begin`."""
        return CachedSequence(self.pool)

    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """See `Runner.forward`."""
        spans = [feed.span() for feed in feeds]
        self._tell(spans)
        logits = self._pass.run(spans)
        for feed in feeds:
            feed.sequence.cached.extend(feed.tokens)
        return list(logits.split([feed.wanted for feed in feeds]))

    def _try(self) -> None:
        """Run two texts in either order: all memory is taken at the start and not under load, and either text, when it
        is the first, is what it would be alone."""
        step = max(1, self.vocabulary // 5)
        # Equally long, so that packing leaves them in the order given.
        texts = [[step, 2 * step], [3 * step, 4 * step]][: self.pool.num_blocks]
        self._logits_of([[step]])  # a compiler takes a single token for a case of its own
        firsts, seconds = self._logits_of(texts), self._logits_of(texts[::-1])[::-1]
        for one, other in zip(firsts, seconds, strict=True):
            check_logits(self._name, one, other)

    def _logits_of(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        sequences = [self.begin() for _ in texts]
        assert all(sequence.grow(len(tokens)) for sequence, tokens in zip(sequences, texts, strict=True))
        feeds = [Feed(sequence, tokens, len(tokens)) for sequence, tokens in zip(sequences, texts, strict=True)]
        logits = self.forward(feeds)
        for sequence in sequences:
            sequence.release()
        return logits
