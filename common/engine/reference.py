"""The oracle: decoding written as plainly as the definition, without cache, batch or engine.

Everything fast in polydraft is tested against this file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.acceptance import accept_coupled, accept_rejection
from common.messages import Verdict
from common.rounds import TokenLog
from common.sampling import draw, gumbel_noise, law
from common.types import GenerationRequest, TokenIds

LogitsOf = Callable[[TokenIds], Tensor]
"""A model as a function: T tokens in, logits [T, V] out; row i is about the token after the first i + 1."""

Drafting = Callable[[TokenIds], TokenIds]
"""A drafter as a function: the committed tokens in, a draft out."""


def logits_of(model: PreTrainedModel) -> LogitsOf:
    """A Hugging Face causal LM as a function: one full forward pass, no cache."""

    @torch.inference_mode()
    def forward(tokens: TokenIds) -> Tensor:
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]

    return forward


def generate_plain(target: LogitsOf, request: GenerationRequest) -> TokenIds:
    """Decode one token per forward pass."""
    log = TokenLog(request)
    while log.finish_reason is None:
        position = len(log.tokens)
        token = int(draw(target(tuple(log.tokens))[-1:], [request.sampling], [position]))
        log.commit((), Verdict(session=0, base=position, accepted=0, next_token=token))
    return log.output


def generate_coupled(target: LogitsOf, drafting: Drafting, request: GenerationRequest) -> TokenIds:
    """Speculative decoding under the coupled rule."""
    log = TokenLog(request)
    while log.finish_reason is None:
        base = len(log.tokens)
        draft = drafting(tuple(log.tokens))
        rows = target((*log.tokens, *draft))[base - 1 :]
        draws = draw(rows, [request.sampling] * len(rows), range(base, base + len(rows))).tolist()
        accepted, token = accept_coupled(draft, draws)
        log.commit(draft, Verdict(session=0, base=base, accepted=accepted, next_token=token))
    return log.output


def generate_rejection(
    target: LogitsOf, drafter: LogitsOf, request: GenerationRequest, count: int, noise: torch.Generator
) -> TokenIds:
    """Speculative decoding under the rejection rule, `count` tokens sampled from the drafter each round."""
    log = TokenLog(request)
    while log.finish_reason is None:
        base = len(log.tokens)
        draft: list[int] = []
        laws: list[Tensor] = []
        for _ in range(count):
            law_V = law(drafter((*log.tokens, *draft))[-1:], [request.sampling])[0]
            draft.append(int(torch.multinomial(law_V, 1, generator=noise)))
            laws.append(law_V)
        p_KV = law(target((*log.tokens, *draft))[base - 1 :], [request.sampling] * (count + 1))
        uniforms_K = torch.rand(count, generator=noise, dtype=torch.float64)
        key = torch.randint(2**62, (1,), generator=noise)
        noise_V = gumbel_noise(key, torch.tensor([base]), p_KV.shape[-1])[0]
        accepted, token = accept_rejection(p_KV, torch.stack(laws), draft, uniforms_K, noise_V)
        log.commit(tuple(draft), Verdict(session=0, base=base, accepted=accepted, next_token=token))
    return log.output
