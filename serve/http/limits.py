"""How much one caller may ask for. Every router replica counts for itself: with n replicas a caller gets up to n times
as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastapi import Request

from common.settings import Settings
from serve.errors import ServiceOverloaded

Clock = Callable[[], float]
"""Seconds, from any start; never goes back."""


class Limits(Settings, frozen=True, kw_only=True):
    """None is no limit."""

    concurrent_requests: int | None = None
    """Requests in progress at the same time."""
    requests_per_minute: int | None = None
    """In the long run; after a pause, as many at once."""
    max_tokens: int | None = None
    """Output tokens of one request, all its choices together."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or null for no limit, not {value}")


class TokenBucket:
    """Full at first; gains `per_minute` tokens a minute and never holds more."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._capacity = per_minute
        self._per_second = per_minute / 60
        self._clock = clock
        self._tokens = float(per_minute)
        self._updated = clock()

    def take(self) -> float:
        """Take one token: 0.0. If there is none, nothing is taken: the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._updated) * self._per_second)
        self._updated = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0.0


class Quota:
    """What one caller has used of its limits. Belongs to one event loop."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self._in_progress = 0
        rate = limits.requests_per_minute
        self._bucket = None if rate is None else TokenBucket(rate, clock)

    def begin(self) -> None:
        """One request more; `end` follows. Raises ServiceOverloaded, naming the limit, and counts nothing."""
        most = self.limits.concurrent_requests
        if most is not None and self._in_progress >= most:
            raise ServiceOverloaded(f"concurrent_requests: at most {most} of this key's requests run at the same time")
        wait_s = self._bucket.take() if self._bucket is not None else 0.0
        if wait_s:
            rate = self.limits.requests_per_minute
            raise ServiceOverloaded(f"requests_per_minute: this key's limit is {rate}", math.ceil(wait_s))
        self._in_progress += 1

    def end(self) -> None:
        assert self._in_progress > 0, "ended more often than begun"
        self._in_progress -= 1


def allowed_tokens(request: Request) -> int | None:
    """Most output tokens that the caller of `request` may ask for; None is no limit."""
    allowed: int | None = getattr(request.state, "allowed_tokens", None)
    return allowed
