"""All that a run's studies have found so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from train.evaluation.studies import domains, http, judge, peers, quality, scaling, speed
from train.evaluation.studies.domains import DomainReport
from train.evaluation.studies.http import HttpReport
from train.evaluation.studies.judge import JudgeReport
from train.evaluation.studies.peers import PeerReport
from train.evaluation.studies.quality import QualityReport
from train.evaluation.studies.scaling import ScalingReport
from train.evaluation.studies.speed import SpeedReport
from train.stages import RECORD

T = TypeVar("T")


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """None for a study that is not done."""

    speed: SpeedReport | None
    domains: DomainReport | None
    scaling: ScalingReport | None
    quality: QualityReport | None
    peers: PeerReport | None
    judge: JudgeReport | None
    http: HttpReport | None
    provenance: dict[str, dict[str, Any]]
    """Of each study that is done: when, with what, by which command."""


def read_findings(folder: Path) -> Findings:
    """`folder` is a run's ``evaluation``."""
    records = {path.parent.name: msgspec.json.decode(path.read_bytes()) for path in sorted(folder.glob(f"*/{RECORD}"))}

    def found(name: str, kind: type[T]) -> T | None:
        return msgspec.convert(records[name]["facts"], kind) if name in records else None

    return Findings(
        speed=found(speed.NAME, SpeedReport),
        domains=found(domains.NAME, DomainReport),
        scaling=found(scaling.NAME, ScalingReport),
        quality=found(quality.NAME, QualityReport),
        peers=found(peers.NAME, PeerReport),
        judge=found(judge.NAME, JudgeReport),
        http=found(http.NAME, HttpReport),
        provenance={name: record["provenance"] for name, record in records.items()},
    )
