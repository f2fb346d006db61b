"""Findings as figures: SVG, so that they stand in a page and in a folder alike."""

from __future__ import annotations

import io
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.evaluation.intervals import Interval
from train.evaluation.methods import PLAIN, SPECIALIST
from train.evaluation.report.findings import Findings
from train.evaluation.report.tables import method_name
from train.evaluation.studies.domains import DomainReport
from train.evaluation.studies.scaling import ScalingReport
from train.evaluation.studies.speed import SpeedReport
from train.evaluation.summary import Summary


def figures(findings: Findings) -> Iterator[tuple[str, str]]:
    """Name and SVG of each."""
    if findings.speed is not None:
        yield "speedup", _svg(_speedup(findings.speed))
        yield "positions", _svg(_positions(findings.speed))
    if findings.domains is not None:
        yield "domains", _svg(_domains(findings.domains))
    if findings.scaling is not None:
        yield "scaling", _svg(_scaling(findings.scaling))


def _svg(figure: Figure) -> str:
    # The same findings give the same bytes: no date, and no random names of elements.
    with matplotlib.rc_context({"svg.hashsalt": "polydraft", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _speedup(report: SpeedReport) -> Figure:
    """Bars by language, one a method, with intervals; a panel a temperature."""
    compared = [found for found in report.compared() if found.way.method != PLAIN]
    temperatures = sorted({found.way.temperature for found in compared})
    figure = Figure(figsize=(11, 3 * len(temperatures)), layout="constrained")
    panels = figure.subplots(len(temperatures), 1, sharex=True, squeeze=False)[:, 0]
    for temperature, panel in zip(temperatures, panels, strict=True):
        _bars(panel, [found for found in compared if found.way.temperature == temperature])
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.set_ylabel(f"speedup, T = {temperature:g}")
    panels[0].legend(ncols=5, fontsize="small", frameon=False)
    return figure


def _bars(panel: Axes, found: list[Summary]) -> None:
    languages = sorted({one.way.language for one in found})
    methods = list(dict.fromkeys(one.way.method for one in found))
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        own = {one.way.language: one.speedup for one in found if one.way.method == method}
        places = [languages.index(language) + (number + 0.5) * width - 0.4 for language in own]
        heights = [one.value for one in own.values()]
        panel.bar(places, heights, width, label=method_name(method), yerr=_errors(list(own.values())), ecolor="gray")
    panel.set_xticks(range(len(languages)), languages)


def _positions(report: SpeedReport) -> Figure:
    """Of the specialist: how often the k-th drafted token is accepted."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    panel = figure.subplots()
    for found in report.compared():
        if found.way.method == SPECIALIST:
            places = range(1, len(found.accepted_per_position) + 1)
            style = "-" if found.way.temperature == 0 else "--"
            label = f"{found.way.language}, T = {found.way.temperature:g}"
            panel.plot(places, found.accepted_per_position, style, marker="o", label=label)
    panel.set(xlabel="place in the draft", ylabel="accepted", ylim=(0, 1))
    panel.legend(ncols=2, fontsize="small", frameon=False)
    return figure


def _domains(report: DomainReport) -> Figure:
    """A heat map: drafters by sets."""
    drafters = list(dict.fromkeys(cell.drafter for cell in report.cells))
    places = list(dict.fromkeys((cell.language, cell.test_set) for cell in report.cells))
    values = np.full((len(places), len(drafters)), np.nan)
    for cell in report.cells:
        row, column = places.index((cell.language, cell.test_set)), drafters.index(cell.drafter)
        values[row, column] = cell.mean_acceptance_length.value
    figure = Figure(figsize=(2 + 0.9 * len(drafters), 1 + 0.3 * len(places)), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(values, aspect="auto", cmap="viridis")
    panel.set_xticks(range(len(drafters)), drafters)
    panel.set_yticks(range(len(places)), [f"{language} {name}" for language, name in places])
    panel.set_xlabel("drafter")
    figure.colorbar(image, label="tokens per verification")
    return figure


def _scaling(report: ScalingReport) -> Figure:
    """Every training run as a point, and the fitted line."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for number, kind in enumerate(report.slopes):
        points = [point for point in report.points if point.kind == kind]
        tokens = np.array([point.tokens for point in points], np.float64)
        panel.scatter(tokens, [point.mean_acceptance_length for point in points], color=f"C{number}", label=kind)
        line = np.polyfit(np.log2(tokens), [point.mean_acceptance_length for point in points], 1)
        panel.plot(np.sort(tokens), np.polyval(line, np.log2(np.sort(tokens))), color=f"C{number}")
    panel.set_xscale("log", base=2)
    panel.set(xlabel="tokens of answers", ylabel="tokens per verification")
    panel.legend(frameon=False)
    return figure


def _errors(found: list[Interval]) -> list[list[float]]:
    return [[one.value - one.low for one in found], [one.high - one.value for one in found]]
