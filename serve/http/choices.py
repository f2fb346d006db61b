"""One choice of an answer: a text being written, round by round."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import msgspec

from common.types import GenerationRequest, Progress, SpeculationStats, Timings, TokenLogprob
from serve.http.text import IncrementalText

Generate = Callable[[GenerationRequest], AsyncIterator[Progress]]
"""See `service.GenerationService.generate`."""


class OutputToken(msgspec.Struct, frozen=True):
    """A token of the output whose log-probability was asked for."""

    logprob: TokenLogprob
    offset: int
    """Characters of the choice's text before it."""


class Choice:
    """One text while it is being written, and what is told of it beside its characters.

    Args:
        index: its place among the answer's choices.
        text: where its tokens become characters.
        named_stop_tokens: those of `request.stop_token_ids` that are told as the reason for the end.
        prefix: characters that the text begins with, before any token.
    """

    def __init__(
        self,
        index: int,
        request: GenerationRequest,
        text: IncrementalText,
        *,
        named_stop_tokens: frozenset[int] = frozenset(),
        prefix: str = "",
    ) -> None:
        self.index = index
        self.request = request
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        """The stop string or the token id that ended the text; None for anything else."""
        self.stats = SpeculationStats()
        """Of the rounds so far; a text that a stop string ends in the middle of one has no more tokens of it."""
        self.timings = Timings()
        self.drafter: str | None = None
        self._text = text
        self._named_stop_tokens = named_stop_tokens
        self._prefix = prefix

    @property
    def output_tokens(self) -> int:
        """Tokens taken, up to and including the one that ended the text."""
        return self.stats.output_tokens

    async def write(self, generate: Generate) -> AsyncGenerator[Piece, None]:
        """The text as it comes, piece by piece; the generation is closed once the text has ended."""
        async with aclosing(generate(self.request)) as rounds:  # type: ignore[type-var]
            async for progress in rounds:
                yield self._take(progress)
                if self._text.stopped:
                    break
        yield Piece(choice=self, text=self._finish(), last=True)

    def _take(self, progress: Progress) -> Piece:
        self.timings = progress.timings
        self.drafter = progress.drafter or self.drafter
        self.finish_reason = progress.finish_reason
        text, offsets = [self._prefix], []
        self._prefix = ""
        for token in progress.tokens:
            if self._text.stopped:
                break
            offsets.append(self._text.length)
            if token in self.request.stop_token_ids:
                self.stop_reason = token if token in self._named_stop_tokens else None
            else:
                text.append(self._text.push(token))
        self.stats = _counting(progress.stats, self.stats, len(offsets))
        tokens = tuple(map(OutputToken, self._logprobs(progress)[: len(offsets)], offsets))
        return Piece(choice=self, text="".join(text), tokens=tokens)

    def _logprobs(self, progress: Progress) -> tuple[TokenLogprob, ...]:
        if self.request.sampling.logprobs is None:
            return ()
        assert len(progress.logprobs) == len(progress.tokens)
        return progress.logprobs

    def _finish(self) -> str:
        rest = self._text.finish()
        if self._text.stopped:
            self.finish_reason, self.stop_reason = "stop", self._text.stopped_by
        return rest


def _counting(stats: SpeculationStats, before: SpeculationStats, taken: int) -> SpeculationStats:
    """`stats`, of which the tokens of the last round count up to the last one `taken`."""
    return msgspec.structs.replace(
        stats,
        accepted_tokens=min(stats.accepted_tokens, before.accepted_tokens + taken),
        output_tokens=before.output_tokens + taken,
    )


def prompt_tokens(choices: Sequence[Choice]) -> int:
    """Of the prompts of one answer's choices, each counted once."""
    # A prompt's choices share the tuple of its tokens.
    prompts = {id(choice.request.prompt): len(choice.request.prompt) for choice in choices}
    return sum(prompts.values())


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What was added to a choice's text."""

    choice: Choice
    text: str
    tokens: tuple[OutputToken, ...] = ()
    """Those that came, if log-probabilities were asked for; their characters may come in a later piece."""
    last: bool = False
    """Whether the text has ended."""
