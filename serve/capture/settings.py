"""The `capture` section of a configuration."""

from __future__ import annotations

import os
from pathlib import Path

from common.languages import language_name
from common.settings import Settings, SettingsError
from serve.capture.redaction import Redactor


class CaptureSettings(Settings, frozen=True, kw_only=True):
    """Which prompts a router keeps to train on, where, and for how long. One with `store: false` is never kept."""

    folder: str
    """Absolute path on the routers' machines."""
    share: float = 0.01
    """Of the requests that do not say; one with `store: true` is always kept. 0: only those."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of those prompts that are kept at all; empty: all languages."""
    redact: tuple[str, ...] = ()
    """Regular expressions of what is taken out, beside redaction.PATTERNS."""
    keep_days: float = 30.0
    """Older files are deleted."""
    max_megabytes: float = 256.0
    """Of all files in the folder; then the oldest go."""

    def __post_init__(self) -> None:
        if not Path(self.folder).is_absolute():
            raise ValueError(f"folder is `{self.folder}`, must be an absolute path")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}, must be in [0, 1]")
        for name in ("keep_days", "max_megabytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be greater than 0")
        for language in self.languages:
            language_name(language)
        Redactor(self.redact)

    def check(self) -> None:
        """Raises SettingsError if the folder can neither be written to nor made."""
        folder = Path(self.folder)
        existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise SettingsError(f"serve.capture.folder {folder}: {existing} is no folder that can be written to")
