"""The HTTP surface behind keys and limits, with a stand-in for the service."""

from __future__ import annotations

from typing import Any

import httpx
from fake_service import FakeService

from serve.http.api import build_api
from serve.http.keys import ApiKey, hash_of
from serve.http.limits import Limits
from serve.http.protection import ProtectionSettings, protect

PROMPT = {"model": "fake", "prompt": "one two", "max_tokens": 8}
OPEN = ProtectionSettings()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def with_keys(*limits: Limits | None, **settings: Any) -> ProtectionSettings:
    """Keys `key 0`, `key 1` …, one for each of `limits`."""
    keys = [ApiKey(name=f"team {i}", hash=hash_of(f"key {i}"), limits=limit) for i, limit in enumerate(limits)]
    return ProtectionSettings(keys=tuple(keys), **settings)


def client(
    settings: ProtectionSettings, service: FakeService | None = None, key: str | None = None, clock: Clock | None = None
) -> httpx.AsyncClient:
    app = protect(build_api(service or FakeService()), settings, clock or Clock())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
