"""The nouns of polydraft. Small, frozen, checked once when they are made.

Vocabulary, as in the speculative-decoding literature: the *target* has law p, the *drafter* law q; a drafted
token is *accepted* or not, the token drawn at the first mismatch is *recovered*, the one drawn after a fully
accepted draft is the *bonus*; accepted, recovered and bonus tokens together are the *output*.
"""

from __future__ import annotations

import msgspec

TokenIds = tuple[int, ...]


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
    seed: int = 0
    """Keys the noise: the same seed gives the same text, with or without speculation."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise ValueError(f"temperature must be between 0 and 100, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit in 64 bits, not {self.seed}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for, in tokens: all that the rounds need to know."""

    prompt: TokenIds
    max_tokens: int
    """Upper bound on output tokens."""
    sampling: SamplingParams
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the text (end of sequence); the stop token itself counts as output."""
    language: str | None = None
    """Language whose drafter helps; None decodes plainly."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt must hold at least one token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")

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

    def __add__(self, other: SpeculationStats) -> SpeculationStats:
        return SpeculationStats(
            rounds=self.rounds + other.rounds,
            drafted_tokens=self.drafted_tokens + other.drafted_tokens,
            accepted_tokens=self.accepted_tokens + other.accepted_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    @property
    def mean_acceptance_length(self) -> float:
        """Output tokens per verification, recovered and bonus tokens included (1.0 is plain decoding)."""
        return self.output_tokens / self.rounds if self.rounds else 0.0

    @property
    def acceptance_rate(self) -> float:
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What one round added to a text."""

    tokens: TokenIds
    """The output tokens of this round, in order; never past a stop token or max_tokens."""
    stats: SpeculationStats
    """Sums over the rounds so far."""
    drafter: str | None = None
    """Version of the drafter that helps at the moment; None while decoding plainly."""
    finish_reason: str | None = None
    """"stop" or "length" on the last one, else None."""
