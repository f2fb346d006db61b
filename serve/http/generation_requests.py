"""From a client's request to the texts that are written for it: prompts in tokens, sampling, a seed for each choice."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from common.types import GenerationRequest, SamplingParams, TokenIds
from serve.errors import ContextLengthExceeded, InvalidRequest
from serve.http.choices import NO_ECHO, Choice, Echo
from serve.http.openai import ChatCompletionRequest, CompletionRequest
from serve.http.service import GenerationService

DEFAULT_COMPLETION_TOKENS = 16

_SEED_STRIDE = 2**32

Body = CompletionRequest | ChatCompletionRequest


def derived_seed(seed: int, k: int) -> int:
    """The seed of a prompt's choice k: seed + k · 2³², wrapped to a signed 64-bit integer.

    Choice 0 has the request's own seed, so that it is the same however many are asked for, and choice k can be had
    again alone by sending its seed. The stride keeps the choices of neighbouring seeds apart.
    """
    return (seed + k * _SEED_STRIDE + 2**63) % 2**64 - 2**63


class Preparation:
    """Makes the choices of a request. A long prompt takes long to read: call it in another thread than streams run in.

    `allowed` is the most output tokens that the caller may ask for, all choices together; None is no limit. What is
    asked for and cannot be had raises InvalidRequest, naming the field.
    """

    def __init__(self, service: GenerationService) -> None:
        self._service = service
        self._codec = service.codec

    def completion(self, body: CompletionRequest, allowed: int | None = None) -> list[Choice]:
        """The choices of every prompt, prompt by prompt."""
        if body.max_tokens == 0 and not body.echo:
            raise InvalidRequest("max_tokens: should be greater than or equal to 1 without echo", "max_tokens")
        seed, limits = _seed(body), _Limits("prompt", self._service.context_length, body.texts, allowed)
        choices: list[Choice] = []
        for prompt in body.prompts:
            tokens = self._codec.encode(prompt) if isinstance(prompt, str) else self._known("prompt", prompt)
            text = prompt if isinstance(prompt, str) else self._codec.decode(prompt)
            limit = limits.max_tokens(len(tokens), body.max_tokens, DEFAULT_COMPLETION_TOKENS)
            # Equal prompts would get equal texts, which is wanted only of a seed that was asked for.
            first = derived_seed(seed, len(choices)) if body.seed is None else seed
            requests = self._requests(body, tokens, text, limit, first)
            choices += self._choices(body, requests, len(choices), self._echo(body, tokens, text))
        return choices

    def chat(self, body: ChatCompletionRequest, allowed: int | None = None) -> list[Choice]:
        """The choices of the conversation."""
        try:
            tokens = self._codec.render(**body.conversation)
        except ValueError as error:
            raise InvalidRequest(str(error), "messages") from None
        limits = _Limits("messages", self._service.context_length, body.texts, allowed)
        limit = limits.max_tokens(len(tokens), body.limit, self._service.context_length)
        return self._choices(body, self._requests(body, tokens, body.question, limit, _seed(body)))

    def _echo(self, body: CompletionRequest, prompt: TokenIds, text: str) -> Echo:
        """As it was sent, or where its tokens are told, what these say: a tokenizer may normalise."""
        if body.prompt_logprobs:
            return Echo(self._codec.decode(prompt), self._codec.offsets(prompt))
        return Echo(text if body.echo else "")

    def _requests(self, body: Body, prompt: TokenIds, text: str, limit: int, seed: int) -> list[GenerationRequest]:
        """The n requests of one prompt; `text` tells its language."""
        speculation = body.speculation
        if speculation.drafter is not None and speculation.drafter not in self._service.drafters:
            known = ", ".join(sorted(self._service.drafters)) or "none"
            raise InvalidRequest(f"speculation: no drafter `{speculation.drafter}`, there are: {known}", "speculation")
        language = body.language
        if language is None and not speculation.off:
            language = self._service.identify(text)
        return [
            GenerationRequest(
                prompt=prompt,
                max_tokens=limit,
                sampling=self._sampling(body, derived_seed(seed, k)),
                stop_token_ids=self._stop_token_ids(body),
                language=language,
                drafter=speculation.drafter,
                max_draft_length=speculation.max_draft_length,
                prompt_logprobs=body.prompt_logprobs,
            )
            for k in range(body.n)
        ]

    def _choices(
        self, body: Body, requests: Sequence[GenerationRequest], first: int = 0, echo: Echo = NO_ECHO
    ) -> list[Choice]:
        eos = frozenset() if body.ignore_eos else self._service.stop_token_ids
        return [
            Choice(
                first + k,
                request,
                self._codec.detokenizer(body.stop, request.prompt),
                named_stop_tokens=frozenset(body.stop_token_ids) - eos,
                echo=echo,
            )
            for k, request in enumerate(requests)
        ]

    def _sampling(self, body: Body, seed: int) -> SamplingParams:
        self._known("logit_bias", list(body.logit_bias))
        return SamplingParams(
            temperature=body.temperature,
            top_k=max(0, body.top_k),
            top_p=body.top_p,
            min_p=body.min_p,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            repetition_penalty=body.repetition_penalty,
            logit_bias=tuple(body.logit_bias.items()),
            seed=seed,
            logprobs=body.alternatives,
        )

    def _stop_token_ids(self, body: Body) -> frozenset[int]:
        named = frozenset(self._known("stop_token_ids", body.stop_token_ids))
        return named if body.ignore_eos else named | self._service.stop_token_ids

    def _known(self, field: str, tokens: Sequence[int]) -> TokenIds:
        """`tokens`, if the model has them all."""
        vocab_size = self._codec.vocab_size
        if tokens and max(tokens) >= vocab_size:
            raise InvalidRequest(f"{field}: token {max(tokens)} is not among the model's {vocab_size}", field)
        return tuple(tokens)


class _Limits:
    """What bounds the length of each text of a request: the context, and what the caller may have."""

    def __init__(self, field: str, context: int, choices: int, allowed: int | None) -> None:
        self._field = field
        self._context = context
        self._choices = choices
        self._allowed = allowed

    def max_tokens(self, prompt: int, asked: int | None, default: int) -> int:
        """Most output tokens after so many of a `prompt`: what was `asked` for, or up to `default`."""
        room = self._room(prompt, least=0 if asked == 0 else 1)
        if asked is not None and asked > room:
            message = (
                f"{prompt} tokens of {self._field} and {asked} of max_tokens exceed the context of {self._context}"
            )
            raise ContextLengthExceeded(message, "max_tokens")
        wanted = min(default, room) if asked is None else asked
        if self._allowed is None:
            return wanted
        share = self._allowed // self._choices
        if share < (wanted if asked is not None else 1):
            message = (
                f"{self._choices} choices of up to {wanted} tokens exceed the {self._allowed} that this key allows"
            )
            raise InvalidRequest(f"max_tokens: {message}", "max_tokens")
        return min(wanted, share)

    def _room(self, prompt: int, least: int) -> int:
        if not prompt:
            raise InvalidRequest(f"{self._field}: holds no tokens", self._field)
        if prompt + least > self._context:
            message = f"{self._field}: {prompt} tokens leave no room in a context of {self._context}"
            raise ContextLengthExceeded(message, self._field)
        return self._context - prompt


def _seed(body: Body) -> int:
    """32 bits: such a seed survives any client's arithmetic."""
    return secrets.randbits(32) if body.seed is None else body.seed
