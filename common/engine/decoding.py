"""Decoding in one process: the same engines and messages as when serving, without the wire.

Distillation decodes plainly with it, evaluation speculatively.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from transformers import PreTrainedModel

from common.engine.cache import BLOCK_SIZE
from common.engine.drafters import DraftModel, make_runner
from common.engine.drafting import Drafting
from common.engine.engine import Engine, Role
from common.engine.lookup import LookupEngine
from common.engine.prepacked import prepack
from common.engine.verification import Verification
from common.messages import Close, Draft, Failure, Prefilled, Reply, Request, Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, SpeculationStats, StepCost, Timings, TokenIds


class Generation(msgspec.Struct, frozen=True):
    """A finished text."""

    output: TokenIds
    stats: SpeculationStats
    finish_reason: str
    rounds: tuple[tuple[int, int], ...] = ()
    """Tokens drafted and, of these, accepted in each round."""
    first_s: float = 0.0
    """Seconds from the beginning until the first round was verified: prefill, and the first draft."""
    total_s: float = 0.0
    """Seconds from the beginning to the end; texts in progress at the same time share them."""
    timings: Timings = Timings()
    """Forward passes that the text took part in."""


class DraftingEngine(Protocol):
    """What drafts: an `Engine`, or a `LookupEngine`."""

    def handle(self, key: int, request: Request) -> None: ...
    def step(self) -> Sequence[tuple[Any, Reply]]: ...


class DecodingError(RuntimeError):
    """An engine refused a session; the message is the engine's."""


@dataclass(slots=True)
class _Text:
    log: TokenLog
    draft: TokenIds = ()
    known: int = 0
    """Tokens that the drafter has been told."""
    drafting: StepCost = field(default_factory=StepCost)
    rounds: list[tuple[int, int]] = field(default_factory=list)
    began_s: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0

    def commit(self, verdict: Verdict) -> None:
        cost = Timings(draft_s=self.drafting.seconds, verify_s=verdict.cost.seconds)
        progress = self.log.commit(self.draft, verdict, timings=cost)
        self.rounds.append((len(self.draft), min(verdict.accepted, len(progress.tokens))))
        self.first_s = self.first_s or time.perf_counter() - self.began_s

    def generation(self) -> Generation:
        assert self.log.finish_reason is not None
        return Generation(
            self.log.output,
            self.log.stats,
            self.log.finish_reason,
            tuple(self.rounds),
            self.first_s,
            time.perf_counter() - self.began_s,
            self.log.timings,
        )


class Decoder:
    """Continuous batching over many requests: a text that ends makes room for the next.

    Args:
        target: verifies.
        drafter: drafts; None decodes plainly.
        draft_length: tokens drafted a round.
        concurrency: texts in progress at the same time.
    """

    def __init__(
        self,
        target: Engine,
        drafter: DraftingEngine | None = None,
        *,
        draft_length: int = 4,
        concurrency: int = 8,
    ) -> None:
        self._target = target
        self._drafter = drafter
        self._draft_length = draft_length
        self._concurrency = concurrency
        self._texts: dict[int, _Text] = {}

    def generate(
        self, requests: Sequence[GenerationRequest], on_finish: Callable[[], object] = lambda: None
    ) -> list[Generation]:
        """Decode all; results in the order of the requests. `on_finish` is called once per finished text.

        Raises DecodingError if an engine refuses one (too long for its context or its cache).
        """
        finished: dict[int, Generation] = {}
        waiting = deque(enumerate(requests))
        try:
            while len(finished) < len(requests):
                while waiting and len(self._texts) < self._concurrency:
                    self._begin(*waiting.popleft())
                for number in self._step():
                    finished[number] = self._end(number)
                    on_finish()
        finally:
            for number in list(self._texts):
                self._close(number)
        return [finished[number] for number in range(len(requests))]

    def _begin(self, number: int, request: GenerationRequest) -> None:
        text = self._texts[number] = _Text(TokenLog(request))
        self._target.handle(number, text.log.open(number, ""))
        if self._drafter is not None:
            self._drafter.handle(number, text.log.open(number, ""))
            text.known = len(text.log.tokens)
        self._next_round(number, text)

    def _next_round(self, number: int, text: _Text) -> None:
        if text.log.prefilling:
            self._target.handle(number, text.log.prefill(number))
            return
        if self._drafter is None:
            self._target.handle(number, text.log.verify(number, ()))
            return
        self._drafter.handle(number, text.log.propose(number, text.known, self._draft_length))
        text.known = len(text.log.tokens)

    def _step(self) -> list[int]:
        """Let both engines step once; returns the texts that ended."""
        replies = [*(self._drafter.step() if self._drafter else ()), *self._target.step()]
        return [number for number, reply in replies if self._on_reply(number, reply)]

    def _on_reply(self, number: int, reply: Reply) -> bool:
        """True if it ended the text."""
        text = self._texts[number]
        match reply:
            case Failure():
                raise DecodingError(reply.message)
            case Draft():
                text.draft, text.drafting = reply.tokens, reply.cost
                self._target.handle(number, text.log.verify(number, reply.tokens))
            case Prefilled():
                text.log.commit_prompt(reply)
                self._go_on(number, text)
            case Verdict():
                text.commit(reply)
                self._go_on(number, text)
        return text.log.finish_reason is not None

    def _go_on(self, number: int, text: _Text) -> None:
        if text.log.finish_reason is None:
            self._next_round(number, text)

    def _end(self, number: int) -> Generation:
        generation = self._texts[number].generation()
        self._close(number)
        return generation

    def _close(self, number: int) -> None:
        self._target.handle(number, Close(session=number))
        if self._drafter is not None:
            self._drafter.handle(number, Close(session=number))
        del self._texts[number]


def build_decoder(
    target: PreTrainedModel,
    drafter: DraftModel | LookupEngine | None = None,
    *,
    max_length: int,
    concurrency: int,
    draft_length: int = 4,
    compiled: bool = False,
    prefix_caching: bool = True,
) -> Decoder:
    """A decoder with memory for `concurrency` texts of `max_length` tokens; the models become the engines'."""
    kv_tokens = concurrency * (max_length + BLOCK_SIZE)

    def engine(model: DraftModel, role: Role) -> Engine:
        if isinstance(model, PreTrainedModel):
            prepack(model)
        runner = make_runner(model, kv_tokens=kv_tokens, compiled=compiled)
        return Engine(runner, role, prefill_chunk=2048, prefix_caching=prefix_caching)

    drafting = drafter if isinstance(drafter, LookupEngine | None) else engine(drafter, Drafting())
    return Decoder(engine(target, Verification()), drafting, draft_length=draft_length, concurrency=concurrency)
