"""The oracle: decoding written as plainly as the definition, without cache, batch or engine.

Everything fast in polydraft is tested against this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.acceptance import accept_coupled, accept_rejection
from common.messages import Verdict
from common.rounds import TokenLog
from common.sampling import draw, gumbel_noise, law
from common.types import GenerationRequest, SamplingParams, TokenIds, TokenLogprob

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


def adjusted(
    logits: Sequence[float], tokens: Sequence[int], prompt_length: int, sampling: SamplingParams
) -> list[float]:
    """Bias and penalties as they are defined: the logits [V] of the token after `tokens`."""
    changed = list(logits)
    for token, bias in sampling.logit_bias:
        changed[token] += bias
    for token in set(tokens):
        if changed[token] > 0:
            changed[token] /= sampling.repetition_penalty
        else:
            changed[token] *= sampling.repetition_penalty
    for token, count in Counter(tokens[prompt_length:]).items():
        changed[token] -= sampling.frequency_penalty * count
        changed[token] -= sampling.presence_penalty
    return changed


def generate_plain(target: LogitsOf, request: GenerationRequest) -> TokenIds:
    """Decode one token per forward pass."""
    log = TokenLog(request)
    while log.finish_reason is None:
        position = len(log.tokens)
        logits_1V = _adjusted_rows(target(tuple(log.tokens))[-1:], log.tokens, (), request)
        token = int(draw(logits_1V, [request.sampling], [position]))
        log.commit((), Verdict(session=0, base=position, accepted=0, next_token=token))
    return log.output


def generate_coupled(target: LogitsOf, drafting: Drafting, request: GenerationRequest) -> TokenIds:
    """Speculative decoding under the coupled rule."""
    log = TokenLog(request)
    while log.finish_reason is None:
        base = len(log.tokens)
        draft = drafting(tuple(log.tokens))
        logits_KV = _adjusted_rows(target((*log.tokens, *draft))[base - 1 :], log.tokens, draft, request)
        draws = draw(logits_KV, [request.sampling] * len(logits_KV), range(base, base + len(logits_KV))).tolist()
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
            logits_1V = _adjusted_rows(drafter((*log.tokens, *draft))[-1:], (*log.tokens, *draft), (), request)
            law_V = law(logits_1V, [request.sampling])[0]
            draft.append(int(torch.multinomial(law_V, 1, generator=noise)))
            laws.append(law_V)
        logits_KV = _adjusted_rows(target((*log.tokens, *draft))[base - 1 :], log.tokens, draft, request)
        p_KV = law(logits_KV, [request.sampling] * (count + 1))
        uniforms_K = torch.rand(count, generator=noise, dtype=torch.float64)
        key = torch.randint(2**62, (1,), generator=noise)
        noise_V = gumbel_noise(key, torch.tensor([base]), p_KV.shape[-1])[0]
        accepted, token = accept_rejection(p_KV, torch.stack(laws), draft, uniforms_K, noise_V)
        log.commit(tuple(draft), Verdict(session=0, base=base, accepted=accepted, next_token=token))
    return log.output


def logprobs(target: LogitsOf, request: GenerationRequest, output: TokenIds) -> tuple[TokenLogprob, ...]:
    """What the model itself says of a text: one for each output token, with as many alternatives as were asked for."""
    reported = []
    for index, token in enumerate(output):
        logprobs_V = target((*request.prompt, *output[:index]))[-1].double().log_softmax(dim=-1).tolist()
        likeliest = sorted(range(len(logprobs_V)), key=lambda t: (-logprobs_V[t], t))[: request.sampling.logprobs or 0]
        reported.append(TokenLogprob(token, logprobs_V[token], tuple((t, logprobs_V[t]) for t in likeliest)))
    return tuple(reported)


def _adjusted_rows(rows: Tensor, tokens: Sequence[int], draft: Sequence[int], request: GenerationRequest) -> Tensor:
    """Row i is about the token after `tokens` and the first i of `draft`."""
    changed = [
        adjusted(row, (*tokens, *draft[:i]), len(request.prompt), request.sampling)
        for i, row in enumerate(rows.double().tolist())
    ]
    return torch.tensor(changed, dtype=torch.float64)
