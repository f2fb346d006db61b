"""Whether `polydraft plan` is right: what its formulas predict beside what the emulated service writes, mix by mix.

Everything is real but the models' steps, which take the stated times, and HTTP. What coordination takes on this machine
is an input of the formulas, so it is measured first, of texts in one language; it is not fitted to the mixes. All
figures are emulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from cluster.bench.coordination import measure_coordination
from cluster.bench.emulated_service import write_target
from cluster.bench.mix_measurement import replicas_of, write
from cluster.bench.mixes import MIXES, Mix
from cluster.bench.report import report
from cluster.bench.streams import Measured
from cluster.capacity.costs import Coordination
from cluster.capacity.rounds import Rounds
from serve.router import TargetModel

COLUMNS = ("mix", "language", "streams", "drafted", "measured", "round ms", "measured", "tokens/s", "measured", "ratio")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one mix, both by language."""

    mix: Mix
    predicted: dict[str, Rounds]
    measured: dict[str, Measured]

    def rows(self, name: str) -> list[list[str]]:
        """One a language, and one of them all."""
        found = [[name, *self._row(language)] for language in self.mix.languages]
        told = self.figures()
        return [*found, [name, "all", *[""] * 5, *(f"{told[key]:.4g}" for key in ("predicted", "measured", "ratio"))]]

    def figures(self) -> dict[str, float]:
        """Tokens per second of all languages, and the one over the other."""
        told = sum(self.mix.tokens_per_s(language, rounds) for language, rounds in self.predicted.items())
        found = sum(one.tokens / one.seconds for one in self.measured.values())
        return {"predicted": round(told, 1), "measured": round(found, 1), "ratio": round(told / found, 4)}

    def _row(self, language: str) -> list[str]:
        streams, predicted, measured = (
            self.mix.languages[language].streams,
            self.predicted[language],
            self.measured[language],
        )
        speeds = self.mix.tokens_per_s(language, predicted), measured.tokens / measured.seconds
        return [
            language,
            f"{streams}",
            f"{predicted.drafted}",
            f"{measured.drafted / measured.rounds:.2f}",
            f"{1e3 * predicted.seconds:.1f}",
            f"{1e3 * measured.round_s(streams):.1f}",
            *(f"{speed:.1f}" for speed in speeds),
            f"{speeds[0] / speeds[1]:.3f}",
        ]


def outcome(mix: Mix, coordination: Coordination, target: TargetModel, *, seconds: float, warm_up_s: float) -> Outcome:
    """Predict a mix, and measure it."""
    with replicas_of(mix, target) as replicas:
        measured = write(mix, target, replicas, seconds=seconds, warm_up_s=warm_up_s)
    return Outcome(mix=mix, predicted=mix.predicted(coordination), measured=measured)


def main(seconds: float, warm_up_s: float, names: list[str]) -> None:
    """Measure the mixes of these names, report."""
    coordination = measure_coordination()
    with TemporaryDirectory() as folder:
        target = TargetModel(str(write_target(Path(folder))))
        outcomes = {
            name: outcome(MIXES[name], coordination, target, seconds=seconds, warm_up_s=warm_up_s) for name in names
        }
    report_outcomes(outcomes, coordination)


def report_outcomes(outcomes: Mapping[str, Outcome], coordination: Coordination) -> None:
    """The worst is the ratio that is furthest from 1."""
    figures = {name: one.figures() for name, one in outcomes.items()}
    worst = max((figure["ratio"] for figure in figures.values()), key=lambda ratio: abs(ratio - 1.0))
    told = {"coordination": msgspec.to_builtins(coordination), "mixes": figures, "worst": worst}
    rows = [row for name, one in outcomes.items() for row in one.rows(name)]
    report("emulated engines: what `polydraft plan` predicts, and what is measured", COLUMNS, rows, told)
