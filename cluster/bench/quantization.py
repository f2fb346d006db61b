"""What a target in 8 bits wins in time and changes in its texts, on test sentences at temperature 0.

speed       tokens per second of our engine, plain, over the same in float32; one text at a time, in turns
same_text   share of the answers that are equal
same_token  share of the tokens of float32's answers that 8 bits would have written there too
tv, kl      total variation, and Kullback-Leibler divergence in nats, of the law in 8 bits from that in float32, at
            these tokens
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from statistics import mean
from typing import Any

import msgspec
import torch
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedModel

from cluster.bench.inflation import inflate
from cluster.bench.report import report
from cluster.bench.service import choose_languages, make_questions
from cluster.run import Run
from common.engine.decoding import Decoder, build_decoder
from common.engine.int8 import quantize
from common.engine.reference import logits_of
from common.models import load_model, load_tokenizer, stop_token_ids
from common.types import GenerationRequest, SamplingParams, TokenIds
from train.evaluation.paired import Timed, speed_ratio


class Answer(msgspec.Struct, frozen=True):
    output: TokenIds
    timed: Timed


class Compared(msgspec.Struct, frozen=True):
    """One question's answers, and how the laws differ at each token of float32's."""

    exact: Answer
    quantized: Answer
    same_token: list[float]
    tv: list[float]
    kl: list[float]


def main(run: Run, data: str, languages: str, count: int, millions: int) -> None:
    """Answer `count` questions of each language both ways, and report. A target of `millions` is made dear, or not."""
    chosen = choose_languages(run.config, languages)
    questions = make_questions(run, data, chosen, count * len(chosen), [0.0])
    torch.set_num_threads(run.config.serve.verifier.threads)
    tokenizer, stop = load_tokenizer(run.target), stop_token_ids(run.target, load_tokenizer(run.target))
    requests = [
        GenerationRequest(
            prompt=tuple(tokenizer(question.prompt)["input_ids"]),
            max_tokens=question.max_tokens,
            sampling=SamplingParams(temperature=0.0),
            stop_token_ids=stop,
        )
        for question in questions
    ]
    _report([*_compare(_target(run, millions), requests)], len(chosen))


def _target(run: Run, millions: int) -> PreTrainedModel:
    model = load_model(run.target)
    return inflate(model, millions * 10**6) if millions else model


def _compare(model: PreTrainedModel, requests: Sequence[GenerationRequest]) -> list[Compared]:
    longest = max(len(request.prompt) + request.max_tokens for request in requests)
    decoder = partial(build_decoder, max_length=longest, concurrency=1, prefix_caching=False)
    # Engines change their models' layers, so each has one of its own.
    laws = [logits_of(model), logits_of(quantize(deepcopy(model)))]
    answers = [partial(_answer, decoder(each)) for each in (deepcopy(model), quantize(deepcopy(model)))]
    for answer in answers:
        answer(requests[0])
    compared = []
    for request in track(requests, "answers", transient=True):
        exact, quantized = (answer(request) for answer in answers)
        whole, prompt = request.prompt + exact.output, len(request.prompt)
        compared.append(Compared(exact, quantized, *_differences(*(law(whole)[prompt - 1 : -1] for law in laws))))
    return compared


def _answer(decoder: Decoder, request: GenerationRequest) -> Answer:
    began = time.perf_counter()
    output = decoder.generate([request])[0].output
    return Answer(output, Timed(tokens=len(output), seconds=time.perf_counter() - began))


def _differences(exact_RV: Tensor, quantized_RV: Tensor) -> tuple[list[float], list[float], list[float]]:
    """At each row: whether the likeliest token is the same, total variation, Kullback-Leibler divergence."""
    same_R = (exact_RV.argmax(-1) == quantized_RV.argmax(-1)).float()
    log_p_RV, log_q_RV = exact_RV.log_softmax(-1), quantized_RV.log_softmax(-1)
    p_RV = log_p_RV.exp()
    tv_R = (p_RV - log_q_RV.exp()).abs().sum(-1) / 2
    kl_R = (p_RV * (log_p_RV - log_q_RV)).sum(-1)
    return same_R.tolist(), tv_R.tolist(), kl_R.tolist()


def _report(compared: Sequence[Compared], languages: int) -> None:
    tokens = sum(len(each.tv) for each in compared)
    named = {name: sum(sum(getattr(each, name)) for each in compared) / tokens for name in ("same_token", "tv", "kl")}
    figures: dict[str, Any] = {
        "speed": speed_ratio([(each.quantized.timed, each.exact.timed) for each in compared]),
        "same_text": mean(each.exact.output == each.quantized.output for each in compared),
    } | {name: round(figure, 6) for name, figure in named.items()}
    report(
        f"8 bits beside float32, {len(compared)} questions in {languages} languages, {tokens} tokens",
        ("", "8 bits"),
        [
            [name, format(figure, ".4g") if isinstance(figure, float) else str(figure)]
            for name, figure in figures.items()
        ],
        msgspec.to_builtins(figures),
    )
