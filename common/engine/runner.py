"""Running a model over packed steps: sequences in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.engine import attention
from common.engine.batch import Feed, pack
from common.engine.cache import BlockPool
from common.engine.compatibility import check_config, check_logits
from common.engine.sequence import CachedSequence
from common.engine.store import KVStore
from common.engine.trimming import TrimmedOutput


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
        model: any Hugging Face causal LM whose attention goes through `AttentionInterface` (Llama, Qwen, Gemma,
            Mistral …), on its device, in its dtype. Its attention implementation is switched to polydraft's. Its output
            may be trimmed.
        kv_tokens: the memory budget, in tokens that can be cached at the same time.
        compiled: whether to have PyTorch compile the layers, which takes some tens of seconds here and a C++ compiler.
    """

    def __init__(self, model: PreTrainedModel, *, kv_tokens: int, compiled: bool = False) -> None:
        check_config(model.config)
        model.eval()
        model.set_attn_implementation(attention.NAME)
        if compiled:
            # Nobody changes the model: looking each time whether it is as it was takes longer than many a layer.
            options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
            model.get_decoder().compile(dynamic=True, fullgraph=True, options=options)
        self._model = model
        self._output = model.get_output_embeddings()
        self.device: torch.device = model.device
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.context_length: int = model.config.get_text_config().max_position_embeddings
        self.pool = BlockPool(kv_tokens)
        self._store = KVStore(self.pool.num_blocks, self.pool.block_size)
        self._try()

    def begin(self) -> CachedSequence:
        """See `Runner.begin`."""
        return CachedSequence(self.pool)

    @torch.inference_mode()
    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """See `Runner.forward`."""
        batch = pack(feeds, self.device, max_blocks=self.pool.num_blocks)
        with attention.running(attention.Step(batch, self._store)):
            logits = self._model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                attention_mask=None,
                use_cache=False,
                logits_to_keep=batch.logit_rows,
            ).logits[0]
        if isinstance(self._output, TrimmedOutput):
            logits = self._output.spread(logits, self.vocabulary)
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
            check_logits(self._model.config.name_or_path, one, other)

    def _logits_of(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        sequences = [self.begin() for _ in texts]
        assert all(sequence.grow(len(tokens)) for sequence, tokens in zip(sequences, texts, strict=True))
        feeds = [Feed(sequence, tokens, len(tokens)) for sequence, tokens in zip(sequences, texts, strict=True)]
        logits = self.forward(feeds)
        for sequence in sequences:
            sequence.release()
        return logits
