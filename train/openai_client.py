"""Asking a server that speaks OpenAI's API, patiently."""

from __future__ import annotations

import os
from typing import Any

import openai

from common.settings import SettingsError
from train.distillation.settings import EndpointSettings

TOO_EARLY = 425


def open_client(endpoint: EndpointSettings) -> openai.AsyncOpenAI:
    """To be closed. Its retries, with exponential back-off, cover 408, 409, 425, 429, 5xx and failed connections.

    Raises SettingsError if the API key's environment variable is not set.
    """
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=api_key(endpoint),
        timeout=endpoint.timeout_s,
        max_retries=endpoint.max_retries,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_retry_too_early]}),
    )


def api_key(endpoint: EndpointSettings) -> str:
    """Raises SettingsError if its environment variable is not set."""
    if endpoint.api_key_env is None:
        return "none"  # the client insists on one
    if endpoint.api_key_env not in os.environ:
        raise SettingsError(f"endpoint.api_key_env: environment variable {endpoint.api_key_env} is not set")
    return os.environ[endpoint.api_key_env]


def reason(error: openai.APIError) -> str:
    """For a message."""
    status = f"HTTP {error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
    return status + error.message


async def _retry_too_early(response: Any) -> None:
    """The client knows no 425, but does what this header says."""
    if response.status_code == TOO_EARLY:
        response.headers["x-should-retry"] = "true"
