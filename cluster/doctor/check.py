"""Something that can be looked at, and what was found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from cluster.config import line_of
from common.models import ModelError
from common.settings import SettingsError
from common.storage import RegistryError
from train.pair import CorpusError

logger = logging.getLogger(__name__)


class Doubt(Exception):
    """Something that works, though perhaps not as it is meant to; the message says what."""


class Check(msgspec.Struct, frozen=True):
    """One thing to look at."""

    what: str
    look: Callable[[], str]
    """Returns what was found, for people; raises what is wrong, or Doubt."""
    remedy: str = ""
    """What to do when it is not right, beyond what the message says."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    state: Literal["right", "doubtful", "wrong"]
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.found}" + (f" ({self.remedy})" if self.remedy else "")


def require(checks: Iterable[Check], config_name: str) -> None:
    """Raises SettingsError naming all that is wrong, with the line of its setting; what is doubtful is logged."""
    wrong = []
    for finding in examine(checks):
        line = line_of(config_name, finding.what)
        if finding.state == "wrong":
            wrong.append(f"{line}: {finding}" if line else str(finding))
        elif finding.state == "doubtful":
            logger.warning("%s", finding)
    if wrong:
        raise SettingsError("\n".join(wrong))


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Look at everything: one thing that is wrong does not keep the others from being looked at."""
    for check in checks:
        try:
            yield Finding(what=check.what, state="right", found=check.look())
        except Doubt as doubt:
            yield Finding(what=check.what, state="doubtful", found=str(doubt), remedy=check.remedy)
        except (SettingsError, ModelError, RegistryError, CorpusError, OSError, ValueError, ImportError) as error:
            found = " ".join(str(error).split()) or type(error).__name__
            yield Finding(what=check.what, state="wrong", found=found, remedy=check.remedy)
