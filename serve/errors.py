"""Why a request is not answered. Subclasses of `ServiceError` say which HTTP status tells it."""

from __future__ import annotations

INVALID = "invalid_request_error"


class ServiceError(Exception):
    """A request that is not answered."""

    status = 500
    kind = "server_error"
    code: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def param(self) -> str | None:
        """The request's field that is wrong."""
        return None

    @property
    def headers(self) -> dict[str, str]:
        return {}


class ServiceUnavailable(ServiceError):
    """No replica can be had."""

    status = 503
    code = "service_unavailable"


class RequestTimeout(ServiceError):
    """The answer was not finished in the time that one may take."""

    status = 408
    code = "request_timeout"

    @property
    def headers(self) -> dict[str, str]:
        """Tells OpenAI's clients not to try again, as they do by themselves: it would take as long once more."""
        return {"x-should-retry": "false"}


class ServiceOverloaded(ServiceError):
    """Too many requests at once; one that comes `retry_after_s` seconds later may be answered."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        # Pickle makes the error again from these, at the other end of a Ray call.
        Exception.__init__(self, message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class InvalidRequest(ServiceError):
    """A request that cannot be answered as it is; `field` is the part of it that is wrong."""

    status = 400
    kind = INVALID

    def __init__(self, message: str, field: str | None = None) -> None:
        Exception.__init__(self, message, field)
        self.message = message
        self.field = field

    @property
    def param(self) -> str | None:
        return self.field


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class ModelNotFound(InvalidRequest):
    status = 404
    code = "model_not_found"


class ReplicaLost(ConnectionError):
    """A replica, or the way to it, is gone. Never reaches clients: a session goes on at another replica."""


class SessionRefused(ServiceError):
    """A replica is there but will not go on with the session; the message is the replica's."""

    status = 503
    code = "session_refused"
