"""Asking a running server the same question with and without speculation, through the official client."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from openai import OpenAI


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    question: str
    text: str
    equal: bool
    """Whether every answer, with and without speculation, was this text."""
    mean_acceptance_length: float
    tokens_per_second: float
    plain_tokens_per_second: float


def compare(url: str, model: str, language: str, question: str, *, repetitions: int = 8) -> Comparison:
    """Ask `repetitions` times each way, in turns, after one unmeasured time each; greedy decoding."""
    client = OpenAI(base_url=url, api_key="unused", timeout=60)
    texts: set[str] = set()
    seconds = {"auto": 0.0, "off": 0.0}
    tokens = {"auto": 0, "off": 0}
    acceptance = 0.0
    for repetition in range(repetitions + 1):
        for speculation in ("auto", "off"):
            started = time.perf_counter()
            answer: Any = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                temperature=0,
                extra_body={"language": language, "speculation": speculation},
            )
            if repetition > 0:
                seconds[speculation] += time.perf_counter() - started
                tokens[speculation] += answer.usage.completion_tokens
            texts.add(answer.choices[0].message.content)
            if speculation == "auto":
                acceptance = answer.polydraft["mean_acceptance_length"]
    return Comparison(
        question=question,
        text=answer.choices[0].message.content,
        equal=len(texts) == 1,
        mean_acceptance_length=acceptance,
        tokens_per_second=tokens["auto"] / seconds["auto"],
        plain_tokens_per_second=tokens["off"] / seconds["off"],
    )
