"""Every message of the data plane. One tagged union each way; `VERSION` is checked when a stream opens.

    router ──Open, Verify, Close──▶ verifier          router ──Open, Propose, Close──▶ drafter
           ◀──Verdict, Failure────                           ◀──Draft, Failure────────

A session is a number that the router chose, unique on its stream. `base` is always a count of committed tokens
(prompt included), so that a stale or repeated message is recognised by both ends. Only token ids travel: under
the coupled rule (see `acceptance`) nothing else is needed.
"""

from __future__ import annotations

import msgspec

from common.types import SamplingParams, TokenIds

VERSION = 1


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First frame from each end of a stream."""

    version: int = VERSION
    incarnation: str = ""
    """Names the replica process; a lease for another incarnation is not honoured on this stream."""


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Begin a session. `token` is the lease's; without it nothing is opened."""

    session: int
    token: str
    prompt: TokenIds
    """The committed tokens so far: the prompt, and on a replay what was already generated."""
    max_length: int
    """Most tokens that the sequence can reach; the replica reserves memory for them."""
    sampling: SamplingParams


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


class Propose(msgspec.Struct, frozen=True, kw_only=True, tag="propose"):
    """The sequence is now its first `base` tokens and then `committed`; draft `count` more (0: only follow)."""

    session: int
    base: int
    committed: TokenIds
    count: int


class Draft(msgspec.Struct, frozen=True, kw_only=True, tag="draft"):
    """Proposed continuation of the first `base` tokens."""

    session: int
    base: int
    tokens: TokenIds


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """The session is over; its memory is freed. Closing twice is harmless."""

    session: int


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """The session cannot go on at this replica; `message` is for people and logs."""

    session: int
    message: str


VerifierRequest = Open | Verify | Close
DrafterRequest = Open | Propose | Close
VerifierReply = Verdict | Failure
DrafterReply = Draft | Failure
Message = Hello | Open | Verify | Verdict | Propose | Draft | Close | Failure
