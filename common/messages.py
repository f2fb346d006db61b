"""Every message of the data plane. One tagged union each way; `VERSION` is checked when a stream opens.

    router ──Open, Prefill, Verify, Close──▶ verifier      router ──Open, Propose, Score, Close──▶ drafter
           ◀──Prefilled, Verdict, Failure───                      ◀──Draft, Scored, Failure───────
           ◀──Alive─────────────────────────                      ◀──Alive────────────────────────

A session is a number that the router chose, unique on its stream. `base` is always a count of committed tokens
(prompt included), so that a stale or repeated message is recognised by both ends. Only token ids travel: under
the coupled rule (see `acceptance`) nothing else is needed.
"""

from __future__ import annotations

import msgspec

from common.types import SamplingParams, StepCost, TokenIds, TokenLogprob

VERSION = 6


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message from each end of a stream."""

    version: int = VERSION
    incarnation: str = ""
    """Names the replica process; a lease for another incarnation is not honoured on this stream."""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """A replica's process lives; told again and again, whatever its engine is busy with."""


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Begin a session. `token` is the lease's; without it nothing is opened."""

    session: int
    token: str
    committed: TokenIds
    """The tokens so far: the prompt, and on a replay what was already generated. Of a prompt whose log-probabilities
    are wanted only the part for which they are known: the rest comes with Prefill."""
    prompt_length: int
    """How many tokens of the text are the prompt: penalties tell prompt and output apart."""
    max_length: int
    """Most tokens that the sequence can reach; it must fit the replica's cache."""
    sampling: SamplingParams


class Prefill(msgspec.Struct, frozen=True, kw_only=True, tag="prefill"):
    """The prompt goes on with `committed` after its first `base` tokens; how likely is each of them?"""

    session: int
    base: int
    committed: TokenIds


class Prefilled(msgspec.Struct, frozen=True, kw_only=True, tag="prefilled"):
    """Of the tokens on top of `base` the first, as many as one step had room for, are taken in; at least one is."""

    session: int
    base: int
    logprobs: tuple[TokenLogprob, ...]
    """One for each of these."""
    cost: StepCost = StepCost()


class Verify(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    """Check `draft`, which continues the `base` committed tokens; an empty draft is plain decoding."""

    session: int
    base: int
    draft: TokenIds = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """Of the draft on top of `base`, the first `accepted` tokens hold, and `next_token` follows them."""

    session: int
    base: int
    accepted: int
    next_token: int
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of the accepted + 1 output tokens, if the session's sampling asks for them."""
    cost: StepCost = StepCost()


class Propose(msgspec.Struct, frozen=True, kw_only=True, tag="propose"):
    """The sequence is now its first `base` tokens and then `committed`; draft `count` more (0: only follow)."""

    session: int
    base: int
    committed: TokenIds
    count: int
    ahead: int = 0
    """Most tokens to answer with if they are drafted already; and so many are worth drafting for whatever may be asked
    next. 0 where nothing is to be drafted ahead."""


class Draft(msgspec.Struct, frozen=True, kw_only=True, tag="draft"):
    """Proposed continuation of the first `base` tokens."""

    session: int
    base: int
    tokens: TokenIds
    ahead: int = 0
    """How many of them, the first ones, were drafted before they were asked for."""
    cost: StepCost = StepCost()


class Score(msgspec.Struct, frozen=True, kw_only=True, tag="score"):
    """Would this drafter have drafted `committed`, which follow the first `base` tokens?"""

    session: int
    base: int
    committed: TokenIds


class Scored(msgspec.Struct, frozen=True, kw_only=True, tag="scored"):
    """Of the tokens on top of `base`, the drafter would have drawn `agreed` itself, each given those before it."""

    session: int
    base: int
    agreed: int
    cost: StepCost = StepCost()


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """The session is over; its memory is freed. Closing twice is harmless."""

    session: int


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """The session cannot go on at this replica; `message` is for people and logs."""

    session: int
    message: str


Question = Prefill | Verify | Propose | Score
"""What is answered."""

Answer = Prefilled | Verdict | Draft | Scored
Request = Open | Question | Close
Reply = Answer | Failure
Message = Hello | Alive | Request | Reply
