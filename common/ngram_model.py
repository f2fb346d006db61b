"""An n-gram language model: what a token is likely to be, given the few tokens before it. `train.ngram` makes them.

    config.json          model_type "polydraft_ngram", order, vocab_size, …
    ngram.safetensors    keys      int64   [C]      hashes of the contexts, of all lengths together, ascending
                         backoff   float32 [C]      share of the law that is left to the next shorter context
                         starts    int32   [C + 1]  where each context's continuations begin
                         tokens    int32   [E]      the continuations …
                         shares    float16 [E]      … and how much of the law each gets from this context
                         unigram   float32 [V]      the law of the empty context

The law is interpolated, from the shortest context to the longest one that is known:
p(w | context) = share(w, context) + backoff(context) · p(w | context without its first token).

Shape suffixes: R rows (one per position), N = order - 1 tokens of context, V vocabulary, M continuations of R contexts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig

from common.models import ModelError

NGRAM_FILE = "ngram.safetensors"
MODEL_TYPE = "polydraft_ngram"
NOTHING = -1
"""Stands for a token before the first one of a text."""

_MULTIPLIER = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_DTYPES = {
    "keys": torch.int64,
    "backoff": torch.float32,
    "starts": torch.int32,
    "tokens": torch.int32,
    "shares": torch.float16,
    "unigram": torch.float32,
}


class NgramConfig(PreTrainedConfig):
    """Read by `common.models.load_config` like any other."""

    model_type = MODEL_TYPE
    order: int = 4
    """Tokens of the longest n-gram: the contexts have up to order - 1."""
    vocab_size: int = 0
    max_position_embeddings: int = 0
    """The target's: any text that it can write, this model can follow."""


AutoConfig.register(MODEL_TYPE, NgramConfig)


class NgramModel(nn.Module):
    """The law of the next token. Tables as above. Raises ValueError, naming the tensor, if they are not such tables."""

    keys: Tensor
    backoff: Tensor
    starts: Tensor
    tokens: Tensor
    shares: Tensor
    unigram: Tensor

    def __init__(self, config: NgramConfig, tables: dict[str, Tensor]) -> None:
        super().__init__()
        _check(config, tables)
        self.config = config
        for name in _DTYPES:
            self.register_buffer(name, tables[name])

    @torch.inference_mode()
    def forward(self, contexts_RN: Tensor) -> Tensor:
        """Logarithms [R, V] of the laws.

        Args:
            contexts_RN: the tokens before each position, the latest first, NOTHING where there are none.
        """
        law_RV = self.unigram.repeat(len(contexts_RN), 1)
        hashes_RN = hash_contexts(contexts_RN)
        index_RN = torch.searchsorted(self.keys, hashes_RN).clamp_max_(max(0, len(self.keys) - 1))
        known_RN = self.keys[index_RN] == hashes_RN if len(self.keys) else torch.zeros_like(index_RN, dtype=torch.bool)
        for length in range(index_RN.shape[1]):
            rows_K = known_RN[:, length].nonzero().squeeze(1)
            if len(rows_K):
                self._interpolate(law_RV, rows_K, index_RN[rows_K, length])
        return law_RV.log_()

    def _interpolate(self, law_RV: Tensor, rows_K: Tensor, contexts_K: Tensor) -> None:
        """In place: K of the rows have a context one token longer in the tables."""
        law_RV[rows_K] *= self.backoff[contexts_K].unsqueeze(1)
        first_K, counts_K = self.starts[contexts_K], self.starts[contexts_K + 1] - self.starts[contexts_K]
        offsets_K = counts_K.cumsum(0) - counts_K
        entries_M = torch.arange(int(counts_K.sum()), device=law_RV.device)
        entries_M += (first_K - offsets_K).repeat_interleave(counts_K)
        where = (rows_K.repeat_interleave(counts_K), self.tokens[entries_M].long())
        law_RV.index_put_(where, self.shares[entries_M].float(), accumulate=True)

    def save(self, folder: Path) -> None:
        """Write config.json and the tables to `folder`."""
        self.config.save_pretrained(folder)
        save_file({name: getattr(self, name).contiguous() for name in _DTYPES}, folder / NGRAM_FILE)

    @classmethod
    def load(cls, folder: str | Path, config: NgramConfig) -> NgramModel:
        """Raises ModelError, naming the file, if the tables are missing or broken."""
        path = Path(folder).expanduser() / NGRAM_FILE
        try:
            return cls(config, load_file(path))
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path}: {' '.join(str(error).split())}") from error


def hash_contexts(contexts_RN: Tensor) -> Tensor:
    """int64 [R, N]: column n is the key of the n + 1 latest tokens.

    A chain of multiplications and SplitMix64's first mixing step. Two of C contexts share a key with probability
    C² / 2⁶⁵; the model would then draft badly after one of them.
    """
    hashes = [torch.zeros_like(contexts_RN[:, 0])]
    for token_R in contexts_RN.unbind(1):
        mixed_R = (hashes[-1] + token_R + 2) * _MULTIPLIER
        hashes.append(mixed_R ^ ((mixed_R >> 31) & ((1 << 33) - 1)))
    return torch.stack(hashes[1:], dim=1)


def _check(config: NgramConfig, tables: dict[str, Tensor]) -> None:
    """What would crash a step, or draft ids that do not exist, is refused before the first one."""
    for name, dtype in _DTYPES.items():
        if name not in tables or tables[name].dtype != dtype or tables[name].dim() != 1:
            raise ValueError(f"`{name}` must be {dtype} with one dimension")
    keys, starts, tokens = tables["keys"], tables["starts"], tables["tokens"]
    if not bool((keys[1:] > keys[:-1]).all()) or len(tables["backoff"]) != len(keys):
        raise ValueError("`keys` must be ascending, with a `backoff` each")
    if len(starts) != len(keys) + 1 or starts[0] != 0 or starts[-1] != len(tokens) or bool((starts.diff() < 0).any()):
        raise ValueError("`starts` must cut `tokens` into one part for each of `keys`")
    if len(tables["shares"]) != len(tokens) or bool(((tokens < 0) | (tokens >= config.vocab_size)).any()):
        raise ValueError(f"`tokens` must be ids below {config.vocab_size}, with one of `shares` each")
    if len(tables["unigram"]) != config.vocab_size or not bool((tables["unigram"] > 0).all()):
        raise ValueError(f"`unigram` must be {config.vocab_size} positive numbers")
