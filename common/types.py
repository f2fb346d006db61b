"""The nouns of polydraft. Small, frozen, checked once when they are made.

Vocabulary, as in the speculative-decoding literature: the *target* has law p, the *drafter* law q; a drafted
token is *accepted* or not, the token drawn at the first mismatch is *recovered*, the one drawn after a fully
accepted draft is the *bonus*; accepted, recovered and bonus tokens together are the *output*.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

TokenIds = tuple[int, ...]

MAX_LOGIT_BIAS = 1024
"""Most tokens with a bias: a message that says otherwise is not decoded."""

MAX_LOGPROBS = 20
"""Most alternatives reported for a token, as in OpenAI's API."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How one token is chosen from the target's logits.

    Raises ValueError, naming the field, when a value is out of range.
    """

    temperature: float = 1.0
    """0 chooses the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches top_p."""
    min_p: float = 0.0
    """Keep the tokens at least this fraction as likely as the likeliest; 0 keeps all."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that the output already holds."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit once for each time the output holds it."""
    repetition_penalty: float = 1.0
    """Divides the positive and multiplies the negative logits of tokens in the prompt or the output (CTRL,
    arXiv 1909.05858)."""
    logit_bias: Annotated[tuple[tuple[int, float], ...], msgspec.Meta(max_length=MAX_LOGIT_BIAS)] = ()
    """Added to the logits of these tokens: (token id, bias) pairs."""
    seed: int = 0
    """Keys the noise: the same seed gives the same text, with or without speculation."""
    logprobs: int | None = None
    """Report each output token's log-probability, and those of this many likeliest ones; None reports nothing."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise ValueError(f"temperature must be between 0 and 100, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"min_p must be between 0 and 1, not {self.min_p}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2.0 <= getattr(self, name) <= 2.0:
                raise ValueError(f"{name} must be between -2 and 2, not {getattr(self, name)}")
        if not 0.0 < self.repetition_penalty <= 100.0:
            raise ValueError(f"repetition_penalty must be in (0, 100], not {self.repetition_penalty}")
        if not all(token >= 0 and -100.0 <= bias <= 100.0 for token, bias in self.logit_bias):
            raise ValueError("logit_bias must map token ids to numbers between -100 and 100")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit in 64 bits, not {self.seed}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise ValueError(f"logprobs must be between 0 and {MAX_LOGPROBS}, not {self.logprobs}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def truncated(self) -> bool:
        """Whether unlikely tokens are never drawn."""
        return bool(self.min_p or self.top_k or self.top_p < 1.0)

    @property
    def penalised(self) -> bool:
        """Whether the logits depend on which tokens came before, beyond what the model makes of them."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """How likely the target found a token of a text: natural logarithms, before penalties and temperature."""

    token: int
    logprob: float
    top: Annotated[tuple[tuple[int, float], ...], msgspec.Meta(max_length=MAX_LOGPROBS)] = ()
    """The likeliest tokens at its position with theirs, likeliest first."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for, in tokens: all that the rounds need to know."""

    prompt: TokenIds
    max_tokens: int
    """Upper bound on output tokens; 0 is for those who want the prompt's log-probabilities only."""
    sampling: SamplingParams
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the text (end of sequence); the stop token itself counts as output."""
    language: str | None = None
    """Language of the text, None if it is not known."""
    drafter: str | None = None
    """Name of the drafter that was asked for; None leaves the choice to the server."""
    max_draft_length: int | None = None
    """Most tokens drafted a round: 0 decodes plainly, None leaves it to the server."""
    prompt_logprobs: bool = False
    """Report the prompt's tokens too, as `sampling.logprobs` says; not the first, which follows nothing."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt must hold at least one token")
        if self.max_tokens < 0:
            raise ValueError(f"max_tokens must not be negative, not {self.max_tokens}")
        if self.prompt_logprobs and self.sampling.logprobs is None:
            raise ValueError("prompt_logprobs needs sampling.logprobs: it says what is reported")
        if self.max_draft_length is not None and self.max_draft_length < 0:
            raise ValueError(f"max_draft_length must not be negative, not {self.max_draft_length}")

    @property
    def max_length(self) -> int:
        """Most tokens the sequence can reach, prompt included."""
        return len(self.prompt) + self.max_tokens


class SpeculationStats(msgspec.Struct, frozen=True, kw_only=True):
    """What speculation did for one text.

    Example: 3 rounds with 4 drafted tokens each, of which 2, 4 and 0 were accepted, write
    2+1 + 4+1 + 0+1 = 9 output tokens: ``mean_acceptance_length`` is 3.0, ``acceptance_rate`` 0.5.
    """

    rounds: int = 0
    """Verifications by the target."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    output_tokens: int = 0
    ahead_drafts: int = 0
    """Drafts of which some tokens were drafted before they were asked for."""
    ahead_tokens: int = 0
    """Those tokens."""

    def __add__(self, other: SpeculationStats) -> SpeculationStats:
        return SpeculationStats(
            rounds=self.rounds + other.rounds,
            drafted_tokens=self.drafted_tokens + other.drafted_tokens,
            accepted_tokens=self.accepted_tokens + other.accepted_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            ahead_drafts=self.ahead_drafts + other.ahead_drafts,
            ahead_tokens=self.ahead_tokens + other.ahead_tokens,
        )

    @property
    def mean_acceptance_length(self) -> float:
        """Output tokens per verification, recovered and bonus tokens included (1.0 is plain decoding)."""
        return self.output_tokens / self.rounds if self.rounds else 0.0

    @property
    def acceptance_rate(self) -> float:
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


class StepCost(msgspec.Struct, frozen=True, array_like=True):
    """What the engine spent on an answer; the basis on which draft lengths are chosen.

    A message with a cost that is none is not decoded: whoever averages costs would never get over it.
    """

    seconds: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 0.0
    """Duration of the forward passes that the answer took part in."""
    tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Tokens in those passes, of all sessions together."""

    def __add__(self, other: StepCost) -> StepCost:
        return StepCost(self.seconds + other.seconds, self.tokens + other.tokens)


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a text went, in seconds."""

    draft_s: float = 0.0
    """The drafter's forward passes."""
    verify_s: float = 0.0
    """The target's forward passes."""
    wire_s: float = 0.0
    """Waiting for either beyond that: the streams, and the queues at both ends."""

    def __add__(self, other: Timings) -> Timings:
        return Timings(
            draft_s=self.draft_s + other.draft_s,
            verify_s=self.verify_s + other.verify_s,
            wire_s=self.wire_s + other.wire_s,
        )

    def __sub__(self, other: Timings) -> Timings:
        return Timings(
            draft_s=self.draft_s - other.draft_s,
            verify_s=self.verify_s - other.verify_s,
            wire_s=self.wire_s - other.wire_s,
        )


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What one round added to a text, or before the first one what became known of its prompt."""

    tokens: TokenIds
    """The output tokens of this round, in order; never past a stop token or max_tokens. None before the first round."""
    stats: SpeculationStats
    """Sums over the rounds so far."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `tokens`, if the request asked for them."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of the next tokens of the prompt, from its second on, if the request asked for them."""
    timings: Timings = Timings()
    """Sums over the rounds so far."""
    drafter: str | None = None
    """What drafts at the moment, such as `de/v0003` or `ngram`; None while decoding plainly."""
    finish_reason: str | None = None
    """"stop" or "length" on the last one, else None."""
