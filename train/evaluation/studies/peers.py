"""Our decoding beside transformers' own, on the same weights and prompts: one text at a time, greedy, in turns.

ours                 transformers
plain                generate
the specialist       generate(assistant_model=…)
prompt lookup        generate(prompt_lookup_num_tokens=…)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
from transformers import PreTrainedModel

from common.types import GenerationRequest, SamplingParams, TokenIds
from train.evaluation.equality import Equality, compare
from train.evaluation.intervals import Interval
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.methods import LOOKUP, PLAIN, SPECIALIST, Method
from train.evaluation.paired import Timed, speed, speed_ratio
from train.evaluation.questions import Question
from train.evaluation.transformers_generation import Generate, assistant, transformers_generate

NAME = "peers"
PEERS = {PLAIN: "plain", SPECIALIST: "assisted", LOOKUP: "prompt_lookup"}
"""Our methods, and transformers' name for the same."""


class PeerReport(msgspec.Struct, frozen=True, kw_only=True):
    equality: Equality
    """Of every text with transformers' plain one."""
    ratios: dict[str, Interval]
    """Our tokens per second over transformers', by its name of the method."""
    tokens_per_s: dict[str, float]
    """By ``ours plain``, ``transformers assisted`` …"""


class Text(msgspec.Struct, frozen=True):
    tokens: list[int]
    seconds: float

    @property
    def timed(self) -> Timed:
        return Timed(tokens=len(self.tokens), seconds=self.seconds)


Row = dict[str, Text]
"""One question's answers by way."""


def run(lab: Lab) -> Iterator[str]:
    """Measure; yields what it is at. Broken off, it starts over: it is a matter of minutes."""
    settings = lab.settings
    stage = lab.stage(NAME, **inputs_of(settings, "peer_questions", "draft_length", "max_tokens"))
    if stage.done:
        return
    theirs = lab.reference
    prompts: list[TokenIds] = []
    rows: list[Row] = []
    for language in lab.languages:
        questions = lab.own_set(language, settings.peer_questions).questions
        ways = _ways(lab, theirs, language, questions)
        asked = lab.prompts(questions)
        _answer(ways, asked[0], 0)  # warms up
        for number, prompt in enumerate(asked):
            prompts.append(prompt)
            rows.append(_answer(ways, prompt, number))
            yield f"{language}: {number + 1} of {len(asked)} questions"
    stage.finish(**msgspec.to_builtins(_report(theirs, prompts, rows)))


def _ways(lab: Lab, theirs: PreTrainedModel, language: str, questions: list[Question]) -> dict[str, Generate]:
    decoders, limit = lab.decoders(questions), lab.settings.max_tokens
    stop = lab.stop_token_ids

    def ours(method: Method) -> Generate:
        decoder = decoders.decoder(method, lab.settings.draft_length)
        sampling = SamplingParams(temperature=0.0)

        def generate(prompt: TokenIds) -> Sequence[int]:
            request = GenerationRequest(prompt=prompt, max_tokens=limit, sampling=sampling, stop_token_ids=stop)
            return decoder.generate([request])[0].output

        return generate

    def transformers(method: Method) -> Generate:
        return transformers_generate(theirs, stop, limit, **_options(method, lab.settings.draft_length))

    compared = [method for method in lab.methods(language) if method.name in PEERS]
    return {f"ours {PEERS[method.name]}": ours(method) for method in compared} | {
        f"transformers {PEERS[method.name]}": transformers(method) for method in compared
    }


def _options(method: Method, draft_length: int) -> dict[str, Any]:
    """As many drafted tokens a round as ours, every time: neither side adapts."""
    if method.name == LOOKUP:
        return {"prompt_lookup_num_tokens": draft_length}
    return {} if method.drafter is None else assistant(method.drafter, draft_length)


def _answer(ways: dict[str, Generate], prompt: TokenIds, number: int) -> Row:
    """In another order each time."""
    names = list(ways)
    row: Row = {}
    for name in (*names[number % len(names) :], *names[: number % len(names)]):
        started = time.perf_counter()
        tokens = list(ways[name](prompt))
        row[name] = Text(tokens, time.perf_counter() - started)
    return row


def _report(theirs: PreTrainedModel, prompts: Sequence[TokenIds], rows: Sequence[Row]) -> PeerReport:
    both = list(zip(prompts, rows, strict=True))
    pairs = chain.from_iterable(
        ((prompt, row["transformers plain"].tokens, text.tokens) for text in row.values()) for prompt, row in both
    )
    methods = [name for name in PEERS.values() if all(f"ours {name}" in row for row in rows)]
    return PeerReport(
        equality=compare(theirs, pairs),
        ratios={
            name: speed_ratio([(row[f"ours {name}"].timed, row[f"transformers {name}"].timed) for row in rows])
            for name in methods
        },
        tokens_per_s={
            name: round(speed([row[name].timed for row in rows if name in row]), 2) for name in sorted(rows[0])
        },
    )
