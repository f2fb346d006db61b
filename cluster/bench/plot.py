"""The autoscaling benchmark's figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from common.languages import language_name

if TYPE_CHECKING:
    from cluster.bench.autoscale import Recording


def plot_recording(recording: Recording, png: Path) -> None:
    """Texts in progress above, running drafter replicas of each language below; a band marks its load."""
    times = [sample.seconds for sample in recording.samples]
    figure = Figure(figsize=(9, 1.6 * (1 + len(recording.phases))), layout="constrained")
    load, *panels = figure.subplots(1 + len(recording.phases), 1, sharex=True)
    load.step(times, [recording.in_flight(t) for t in times], where="post", color="dimgray")
    load.set_ylabel("texts in\nprogress")
    most = max(
        sum(replicas)
        for s in recording.samples
        for replicas in zip(s.running.values(), s.starting.values(), strict=True)
    )
    for number, ((language, phase), panel) in enumerate(zip(recording.phases.items(), panels, strict=True)):
        color = f"C{number}"
        for axes in (load, panel):
            axes.axvspan(phase.start_s, phase.end_s, color=color, alpha=0.12, linewidth=0)
        running = [sample.running[language] for sample in recording.samples]
        wanted = [sample.running[language] + sample.starting[language] for sample in recording.samples]
        panel.step(times, wanted, where="post", color=color, linestyle=":", label="with those starting")
        panel.step(times, running, where="post", color=color, label="running")
        panel.set_ylim(0, most + 0.5)
        panel.yaxis.get_major_locator().set_params(integer=True)
        panel.set_ylabel(f"{language_name(language)}\nreplicas")
    panels[0].legend(loc="upper right", frameon=False)
    panels[-1].set_xlabel("seconds")
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=120)
