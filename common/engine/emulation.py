"""Emulated models: a step takes as long as stated, drafts are right as often as stated, and nothing is computed.

They stand behind the real engine, so that everything but the forward pass is what is deployed, and coordination can be
measured at the timings of hardware that is not at hand.

A text is a pure function of its name, its first two tokens, and of the position. So a target and a drafter in different
processes agree on it without a word, and whether a drafted token is right does not depend on when it was drafted:

    position        7     8     9     10
    target          truth at each
    drafter  1st    truth with probability `acceptance`, each position for itself
             2nd    where the first is wrong, truth with probability `runner_up`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from struct import unpack
from typing import Protocol

import msgspec
import torch
from torch import Tensor

from common.engine.batch import Feed
from common.engine.cache import BlockPool
from common.engine.engine import Engine, Role
from common.engine.sequence import CachedSequence
from common.engine.session import Key
from common.messages import Reply
from common.types import TokenIds

_NAME_LENGTH = 2
"""Tokens that tell texts apart."""
_SURE = 60.0
"""Logit of the first choice, twice that of the second: at temperatures around 1 no noise makes up for that."""
_MOST_OWED_S = 2e-3
"""Far more than a sleep lasts too long. A process that stood still is not made up for."""
_SIDES = 2**32


class EmulatedModel(Protocol):
    def choices(self, name: TokenIds, position: int) -> tuple[int, int]:
        """The likeliest token at `position` of a text, and the next likeliest."""


class EmulatedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Writes token ids below `words`, of which there must be three at least."""

    words: int
    seed: int = 0

    def choices(self, name: TokenIds, position: int) -> tuple[int, int]:
        """See `EmulatedModel`."""
        truth = self.dice(name, position)[0] % self.words
        return truth, (truth + 1) % self.words

    def dice(self, name: TokenIds, position: int) -> tuple[int, int, int]:
        """Independent, and the same for whoever asks."""
        thrown = blake2b(repr((self.seed, name, position)).encode(), digest_size=12).digest()
        truth, first, second = unpack("<3I", thrown)
        return truth, first, second


class EmulatedDrafter(msgspec.Struct, frozen=True, kw_only=True):
    """Raises ValueError, naming the field, if a probability is none."""

    target: EmulatedTarget
    acceptance: float
    """P(the first choice is the target's token)."""
    runner_up: float
    """P(the second choice is, if the first is not)."""

    def __post_init__(self) -> None:
        for name in ("acceptance", "runner_up"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")

    def choices(self, name: TokenIds, position: int) -> tuple[int, int]:
        """See `EmulatedModel`."""
        truth, wrong = self.target.choices(name, position)
        _, first, second = self.target.dice(name, position)
        if first < self.acceptance * _SIDES:
            return truth, wrong
        return wrong, truth if second < self.runner_up * _SIDES else (truth + 2) % self.target.words


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long a step takes, whatever the number of sessions in it. Raises ValueError if a time is negative."""

    base_s: float
    token_s: float = 0.0
    """In addition, for each token of all sessions."""

    def __post_init__(self) -> None:
        if self.base_s < 0.0 or self.token_s < 0.0:
            raise ValueError(f"a step takes no negative time: {self.base_s:g} s and {self.token_s:g} s a token")

    def seconds(self, tokens: int) -> float:
        return self.base_s + self.token_s * tokens


class Pace:
    """Has steps take their stated time, by sleeping.

    A sleep ends some 0.1 ms late. To spin instead would take the processor from who shares it; so what a step took too
    long, the next ones take less: right on average.
    """

    def __init__(
        self,
        times: StepTimes,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._times = times
        self._clock = clock
        self._sleep = sleep
        self._stated_s = 0.0
        self._owed_s = 0.0

    def wait(self, began_s: float, tokens: int) -> None:
        """Returns when a pass of `tokens` that began at `began_s` is due."""
        self._stated_s = self._times.seconds(tokens)
        left_s = began_s + self._stated_s - self._owed_s - self._clock()
        if left_s > 0.0:
            self._sleep(left_s)

    def settle(self, took_s: float) -> None:
        """The step, with that pass or with none, really took so long."""
        self._owed_s = min(max(0.0, self._owed_s + took_s - self._stated_s), _MOST_OWED_S)
        self._stated_s = 0.0


class EmulatedRunner:
    """Implements `runner.Runner`. Its pool lends memory that nobody allocated.

    Args:
        vocabulary: ids that a text can hold; the model writes some of them.
    """

    def __init__(
        self, model: EmulatedModel, pace: Pace, *, vocabulary: int, context_length: int, kv_tokens: int
    ) -> None:
        self._model = model
        self._pace = pace
        self.vocabulary = vocabulary
        self.context_length = context_length
        self.pool = BlockPool(kv_tokens)

    def begin(self) -> CachedSequence:
        """See `Runner.begin`."""
        return CachedSequence(self.pool)

    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """See `Runner.forward`."""
        began_s = time.perf_counter()
        for feed in feeds:
            feed.sequence.cached.extend(feed.tokens)
        choices = [choice for feed in feeds for choice in self._choices(feed)]
        logits_RV = torch.zeros(len(choices), self.vocabulary)
        if choices:
            scores_R2 = torch.tensor([_SURE, _SURE / 2]).expand(len(choices), 2)
            logits_RV.scatter_(1, torch.tensor(choices), scores_R2)
        self._pace.wait(began_s, sum(len(feed.tokens) for feed in feeds))
        return list(logits_RV.split([feed.wanted for feed in feeds]))

    def _choices(self, feed: Feed) -> list[tuple[int, int]]:
        """At each position whose logits are wanted."""
        tokens = feed.sequence.cached
        name = tuple(tokens[:_NAME_LENGTH])
        ends = range(len(tokens) - feed.wanted + 1, len(tokens) + 1)
        return [self._model.choices(name[:end], end) for end in ends]


class EmulatedEngine(Engine):
    """The real engine on an emulated model: one step serves all sessions that have asked.

    A step takes the stated time with all that the engine does in it beside the pass: planning, drawing, answering.
    """

    def __init__(
        self,
        model: EmulatedModel,
        role: Role,
        times: StepTimes,
        *,
        vocabulary: int,
        context_length: int,
        kv_tokens: int,
    ) -> None:
        self._pace = Pace(times)
        runner = EmulatedRunner(
            model, self._pace, vocabulary=vocabulary, context_length=context_length, kv_tokens=kv_tokens
        )
        super().__init__(runner, role)

    def step(self) -> list[tuple[Key, Reply]]:
        """See `Engine.step`."""
        began_s = time.perf_counter()
        replies = super().step()
        self._pace.settle(time.perf_counter() - began_s)
        return replies
