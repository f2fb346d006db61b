"""Where a result comes from: written beside every model and every figure."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "torch", "transformers", "deepspeed", "datasets", "tokenizers")


def provenance(**facts: Any) -> dict[str, Any]:
    """Revision, command, versions and machine, and the given facts."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "system": platform.system()},
        **facts,
    }


def _git_revision() -> str | None:
    """Of the source tree that runs; None outside a checkout. "+" marks uncommitted changes."""
    folder = Path(__file__).parent
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        return revision + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
