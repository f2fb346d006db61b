"""What worker 0 tells of a run: lines of its log, and the same figures to the trackers."""

from __future__ import annotations

from train.job import TrainingJob
from train.packing import PackedRows
from train.progress import ProgressLog, StepFigures
from train.validation import judgements
from train.watching.trackers import open_trackers


class Reporter:
    """The row's padding is the corpus's; what is known of acceptance is read from what the validation tasks wrote."""

    def __init__(
        self, job: TrainingJob, rows: PackedRows, flops_per_token: float, workers: int, resumed_step: int
    ) -> None:
        settings = job.settings
        peak = settings.peak_tflops
        self._output = job.output
        self._log = ProgressLog(
            job.output,
            settings.steps,
            settings.rows_per_step * settings.row_length,
            resumed_step,
            peak_tokens=peak * 1e12 * workers / flops_per_token if peak else None,
        )
        self._trackers = open_trackers(job, resumed_step)
        self._padding_share = rows.report.padding_share

    def tell(self, step: int, figures: StepFigures) -> None:
        """`step` are done."""
        judged = judgements(self._output)
        progress = self._log.write(
            step,
            figures,
            padding_share=self._padding_share,
            acceptance=judged[-1].score if judged else None,
        )
        for tracker in self._trackers:
            tracker.log(step, progress.figures())

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
