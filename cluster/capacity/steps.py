"""How long steps of a real engine take, by how many tokens are in them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import msgspec
import torch

from common.engine.cache import BLOCK_SIZE
from common.engine.drafters import DraftModel
from common.engine.engine import Engine, Role
from common.engine.verification import Verification
from common.messages import Close, Draft, Question, Reply, Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, StepCost
from serve.model_runner import model_runner
from serve.settings import ReplicaSettings

PROMPT = 64
"""Tokens of a text before the first round that is timed, or a quarter of the model's context."""
ROUNDS = 7
"""Timed of each size; the median counts."""


class TimedEngine:
    """An engine whose rounds are timed, of so many texts with so many tokens drafted: each of `sizes`.

    A verifier's round is one step, a drafter's as many as it drafts tokens. All texts are drawn at `temperature`, which
    takes a CPU a good part of a step unless it is 0. The model becomes the engine's. Raises ModelError if the settings
    do not suit it.
    """

    def __init__(
        self,
        model: DraftModel,
        role: Role,
        settings: ReplicaSettings,
        sizes: Sequence[tuple[int, int]],
        *,
        temperature: float = 0.0,
    ) -> None:
        torch.set_num_threads(settings.threads)
        self._role, self._sizes = role, sizes
        self._temperature = temperature
        self._costs: list[StepCost] = []
        kv_tokens = max(texts * (PROMPT + _output(drafted) + BLOCK_SIZE) for texts, drafted in sizes)
        runner = model_runner(model, msgspec.structs.replace(settings, kv_tokens=kv_tokens))
        self._context = runner.context_length
        self._engine = Engine(runner, role, prefill_chunk=kv_tokens, on_step=self._costs.append)

    def time(self) -> list[tuple[int, float]]:
        """Of each size the tokens of a step, and the milliseconds of a round."""
        found = []
        for texts, drafted in self._sizes:
            sampling = [SamplingParams(temperature=self._temperature, seed=number) for number in range(texts)]
            asked = [_Text(each, self._context, drafted, self._role) for each in sampling]
            taken = list(_rounds(self._engine, asked))
            found.append((self._costs[-1].tokens, round(1e3 * median(taken), 3)))
        return found


def _rounds(engine: Engine, texts: Sequence[_Text]) -> Iterator[float]:
    """Seconds of each round but the first, which reads the prompts."""
    for number, text in enumerate(texts):
        engine.handle(number, text.log.open(number, ""))
    for turn in range(1 + ROUNDS):
        for number, text in enumerate(texts):
            engine.handle(number, text.question(number))
        began, replies = time.perf_counter(), list[tuple[Any, Reply]]()
        while len(replies) < len(texts):
            replies += engine.step()
        if turn:
            yield time.perf_counter() - began
        for number, reply in replies:
            texts[number].take(reply)
    for number in range(len(texts)):
        engine.handle(number, Close(session=number))


class _Text:
    """Goes on as the engine says: a verifier by its verdicts, a drafter by its drafts."""

    def __init__(self, sampling: SamplingParams, context: int, drafted: int, role: Role) -> None:
        self._draft = (0,) * drafted
        prompt = min(PROMPT, context // 4)
        self._verifies = isinstance(role, Verification)
        # No two begin alike, so that none shares another's keys and values.
        tokens = (1 + sampling.seed, *range(1, prompt))
        output = min(_output(drafted), context - prompt)
        self.log = TokenLog(GenerationRequest(prompt=tokens, max_tokens=output, sampling=sampling))
        self._known = prompt

    def question(self, session: int) -> Question:
        if self._verifies:
            return self.log.verify(session, self._draft)
        known, self._known = self._known, len(self.log.tokens)
        return self.log.propose(session, known, len(self._draft))

    def take(self, reply: Reply) -> None:
        match reply:
            case Verdict():
                self.log.commit(self._draft, reply)
            case Draft():
                *drafted, last = reply.tokens
                verdict = Verdict(session=reply.session, base=reply.base, accepted=len(drafted), next_token=last)
                self.log.commit(tuple(drafted), verdict)
            case _:
                raise AssertionError(f"an engine answered {reply}")


def _output(drafted: int) -> int:
    """The most that a text can have written by its last round."""
    return (1 + ROUNDS) * (1 + drafted)
