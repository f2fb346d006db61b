"""API keys: generated here, shown once, configured as hashes.

A key is 256 random bits, so nothing but trying all of them finds it from its SHA-256. A slow, salted hash protects
passwords, which people choose and repeat; here it would only add its time to every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from common.settings import Settings, load
from serve.http.limits import Limits

_PREFIX = "pd-"  # by it people, and tools that look for leaked secrets, know what it is
_RANDOM_BYTES = 32
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class ApiKey(Settings, frozen=True, kw_only=True):
    """A caller, known by the hash of its key."""

    name: str
    """For people: whose key it is."""
    hash: str
    """As `polydraft keys new` prints it."""
    limits: Limits | None = None
    """None takes the default ones."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if not _HASH.fullmatch(self.hash):
            # Not repeated: it may be a key, put there by mistake.
            raise ValueError(f"hash of key {self.name!r} must be sha256: and 64 hexadecimal digits, not the key itself")


class KeyFile(Settings, frozen=True, kw_only=True):
    """A YAML file of keys, kept apart from the rest of the configuration."""

    keys: tuple[ApiKey, ...]
    """As in the configuration."""

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("keys must hold at least one key: without any, the server would be open to everyone")
        check_distinct(self.keys)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Raises SettingsError naming the file and the line of broken YAML, or the field that is wrong."""
    return load(path, KeyFile).keys


def check_distinct(keys: Sequence[ApiKey]) -> None:
    """Raises ValueError if a name or a key is there twice."""
    for field in ("name", "hash"):
        values = [getattr(key, field) for key in keys]
        repeated = {key.name for key in keys if values.count(getattr(key, field)) > 1}
        if repeated:
            raise ValueError(f"keys: {', '.join(sorted(repeated))}: the same {field} twice")


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def find_key(keys: Sequence[ApiKey], presented: str) -> ApiKey | None:
    """The entry whose key was presented. All are compared, each in constant time: the time tells nothing."""
    digest, found = hash_of(presented), None
    for key in keys:
        if hmac.compare_digest(digest, key.hash):
            found = key
    return found
