"""How much one caller may ask for. Every router replica counts for itself: with n replicas a caller gets up to n times
as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from fastapi import Request

from common.settings import Settings
from serve.errors import InvalidRequest, ServiceOverloaded

Clock = Callable[[], float]
"""Seconds, from any start; never goes back."""


class Limits(Settings, frozen=True, kw_only=True):
    """None is no limit."""

    concurrent_requests: int | None = None
    """Requests in progress at the same time; one counts for each text that it has written, prompts times n."""
    requests_per_minute: int | None = None
    """In the long run; after a pause, as many at once. Counted as above."""
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

    def take(self, count: int = 1) -> float:
        """Take `count` tokens: 0.0. If they are not there, nothing is taken: the seconds until they are."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._updated) * self._per_second)
        self._updated = now
        if self._tokens < count:
            return (count - self._tokens) / self._per_second
        self._tokens -= count
        return 0.0


class Places:
    """For texts in progress: of one caller's, or of all at this router.

    Args:
        most: None is no limit.
        name: of the limit, for who meets it.
    """

    def __init__(self, most: int | None, name: str) -> None:
        self.most = most
        self._name = name
        self._taken = 0

    def take(self, count: int) -> None:
        """Raises ServiceOverloaded, naming the limit, and takes none."""
        if self.most is not None and self._taken + count > self.most:
            raise ServiceOverloaded(f"{self._name}: {self._taken} of at most {self.most} are in progress")
        self._taken += count

    def give_back(self, count: int) -> None:
        assert self._taken >= count, "more given back than taken"
        self._taken -= count


class Quota:
    """What one caller has used of its limits. Belongs to one event loop."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self.places = Places(limits.concurrent_requests, "concurrent_requests of this key")
        rate = limits.requests_per_minute
        self._bucket = None if rate is None else TokenBucket(rate, clock)

    def take(self, count: int) -> None:
        """`count` requests more, whose places are given back later. Raises ServiceOverloaded and counts nothing."""
        self.places.take(count)
        wait_s = self._bucket.take(count) if self._bucket is not None else 0.0
        if wait_s:
            self.places.give_back(count)
            rate = self.limits.requests_per_minute
            raise ServiceOverloaded(f"requests_per_minute: this key's limit is {rate}", math.ceil(wait_s))


class Share:
    """What one request holds until its answer has ended: of its caller's quota, and of the router's places.

    It counts as one request when it comes, and as many as it has texts once that is known.
    """

    def __init__(self, quota: Quota, places: Places) -> None:
        self._quota = quota
        self._places = places
        self._requests = self._texts = 0

    @property
    def allowed_tokens(self) -> int | None:
        """Most output tokens that the request may ask for; None is no limit."""
        return self._quota.limits.max_tokens

    def begin(self) -> None:
        """Raises ServiceOverloaded."""
        self._quota.take(1)
        self._requests = 1

    def charge(self, texts: int) -> None:
        """Raises ServiceOverloaded, or InvalidRequest for what could never be had."""
        limits = self._quota.limits
        for most in (limits.concurrent_requests, limits.requests_per_minute, self._places.most):
            if most is not None and texts > most:
                raise InvalidRequest(f"n: {texts} texts, prompts times n, exceed the {most} that are allowed", "n")
        self._places.take(texts)
        self._texts = texts
        self._quota.take(texts - self._requests)
        self._requests = texts

    def end(self) -> None:
        self._quota.places.give_back(self._requests)
        self._places.give_back(self._texts)


def share_of(request: Request) -> Share:
    """The share of `request`; without `protection` around the application it is unlimited."""
    share: Share | None = getattr(request.state, "share", None)
    return share or Share(Quota(Limits(), time.monotonic), Places(None, ""))
