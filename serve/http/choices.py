"""One choice of an answer: a text being written, round by round."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import msgspec

from common.types import GenerationRequest, Progress, SpeculationStats, Timings, TokenLogprob
from serve.http.text import IncrementalText

Generate = Callable[[GenerationRequest], AsyncIterator[Progress]]
"""See `service.GenerationService.generate`."""


class TextToken(msgspec.Struct, frozen=True):
    """A token of a text whose log-probability was asked for."""

    token: int
    logprob: TokenLogprob | None
    """None for the first token of a prompt, which follows nothing."""
    offset: int
    """Characters of the choice's text before it."""


class Echo(msgspec.Struct, frozen=True):
    """The prompt, as the beginning of a choice's text."""

    text: str = ""
    offsets: Sequence[int] = ()
    """Characters of the text before each token of the prompt; needed if their log-probabilities were asked for."""


NO_ECHO = Echo()


class Choice:
    """One text while it is being written, and what is told of it beside its characters.

    Args:
        index: its place among the answer's choices.
        text: where its tokens become characters.
        named_stop_tokens: those of `request.stop_token_ids` that are told as the reason for the end.
        echo: what the text begins with, before any output.
    """

    def __init__(
        self,
        index: int,
        request: GenerationRequest,
        text: IncrementalText,
        *,
        named_stop_tokens: frozenset[int] = frozenset(),
        echo: Echo = NO_ECHO,
    ) -> None:
        self.index = index
        self.request = request
        self.finish_reason: str | None = None if request.max_tokens else "length"
        self.stop_reason: str | int | None = None
        """The stop string or the token id that ended the text; None for anything else."""
        self.stats = SpeculationStats()
        """Of the rounds so far; a text that a stop string ends in the middle of one has no more tokens of it."""
        self.timings = Timings()
        self.drafter: str | None = None
        self._text = text
        self._named_stop_tokens = named_stop_tokens
        self._echo = echo
        self._echoed = 0
        """Tokens of the prompt that were told."""
        self._begun = False

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
        text, tokens = self._begin()
        yield Piece(choice=self, text=text + self._finish(), tokens=tuple(tokens), last=True)

    def _take(self, progress: Progress) -> Piece:
        self.timings = progress.timings
        self.drafter = progress.drafter or self.drafter
        self.finish_reason = progress.finish_reason
        text, tokens = self._begin()
        tokens += self._tell_prompt(progress.prompt_logprobs)
        written, told = self._tell_output(progress)
        return Piece(choice=self, text=text + written, tokens=(*tokens, *told))

    def _begin(self) -> tuple[str, list[TextToken]]:
        """What the text begins with, once."""
        if self._begun:
            return "", []
        self._begun = True
        first = self._tell_prompt([None]) if self.request.prompt_logprobs else []
        return self._echo.text, first

    def _tell_prompt(self, logprobs: Sequence[TokenLogprob | None]) -> list[TextToken]:
        """The prompt's next tokens."""
        start, self._echoed = self._echoed, self._echoed + len(logprobs)
        tokens, offsets = self.request.prompt[start : self._echoed], self._echo.offsets[start : self._echoed]
        return [TextToken(*told) for told in zip(tokens, logprobs, offsets, strict=True)]

    def _tell_output(self, progress: Progress) -> tuple[str, list[TextToken]]:
        text: list[str] = []
        offsets: list[int] = []
        for token in progress.tokens:
            if self._text.stopped:
                break
            offsets.append(len(self._echo.text) + self._text.length)
            if token in self.request.stop_token_ids:
                self.stop_reason = token if token in self._named_stop_tokens else None
            else:
                text.append(self._text.push(token))
        self.stats = _counting(progress.stats, self.stats, len(offsets))
        logprobs = self._logprobs(progress)[: len(offsets)]
        return "".join(text), [
            TextToken(told.token, told, offset) for told, offset in zip(logprobs, offsets, strict=False)
        ]

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
    tokens: tuple[TextToken, ...] = ()
    """Those that came, if log-probabilities were asked for; their characters may come in a later piece."""
    last: bool = False
    """Whether the text has ended."""
