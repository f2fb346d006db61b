"""Two runs beside each other, on the questions that both have answered."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.table import Table

from common.settings import SettingsError
from train.evaluation.intervals import Interval
from train.evaluation.records import Records
from train.evaluation.studies import speed
from train.evaluation.summary import Group, WayKey, acceptance_ratio, group


class Change(msgspec.Struct, frozen=True, kw_only=True):
    way: WayKey
    questions: int
    """In both runs."""
    acceptance: Interval
    """Mean acceptance length of the second run over the first's."""

    @property
    def verdict(self) -> str:
        if self.acceptance.low > 1.0:
            return "better"
        return "worse" if self.acceptance.high < 1.0 else "not told apart"


def compare_runs(before: Path, after: Path) -> list[Change]:
    """Folders are two runs' ``evaluation``. Raises SettingsError naming one without records of the speed study."""
    old, new = _groups(before), _groups(after)
    shared = [way for way in sorted(old.keys() & new.keys()) if old[way].keys() & new[way].keys()]
    if not shared:
        raise SettingsError(f"{before} and {after} have no question in common")
    return [
        Change(
            way=way,
            questions=len(old[way].keys() & new[way].keys()),
            acceptance=acceptance_ratio(new[way], old[way]),
        )
        for way in shared
    ]


def comparison_table(changes: list[Change]) -> Table:
    table = Table("language", "T", "method", "draft length", "questions", "acceptance, after / before", "")
    for change in changes:
        way = change.way
        cells = (way.language, f"{way.temperature:g}", way.method, str(way.draft_length), str(change.questions))
        table.add_row(*cells, str(change.acceptance), change.verdict)
    return table


def _groups(folder: Path) -> dict[WayKey, Group]:
    path = folder / speed.NAME / speed.RECORDS
    if not path.exists():
        raise SettingsError(f"{path}: no such file; measure first (polydraft evaluate --what speed)")
    return group(Records(path))
