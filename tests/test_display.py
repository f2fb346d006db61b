"""What a run shows: in a log single lines, few and whole; on a terminal a table of what is going on."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from train.display import Display
from train.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(step: int) -> Progress:
    return Progress(
        step=step,
        steps=100,
        loss=2.5,
        acceptance=1.75,
        tokens_per_second=1234.5,
        learning_rate=0.1,
        gradient_norm=1.0,
        elapsed_s=1.0,
    )


def test_a_log_gets_a_line_of_a_language_every_few_seconds_and_at_each_end() -> None:
    clock, written = Clock(), StringIO()
    with Display(Console(file=written, width=40), clock) as display:
        display.begin("de", "pretrain")
        for second in range(10):
            clock.now = float(second)
            display.train("de", "pretrain", progress(second + 1))
        display.update("fr", "distill", 5, 20)
        display.end("de", "pretrain")
    assert written.getvalue().splitlines() == [
        "de pretrain: 1/100, tokens/s 1,234, loss 2.500, acceptance 1.75",
        "de pretrain: 6/100, tokens/s 1,234, loss 2.500, acceptance 1.75, time left 0:01:34",
        "fr distill: 5/20",
        "de pretrain: done",
    ]


def test_a_resumed_stage_tells_the_time_left_by_its_own_pace() -> None:
    clock, written = Clock(), StringIO()
    with Display(Console(file=written), clock) as display:
        display.update("de", "distill", 80, 100)
        clock.now = 10.0
        display.update("de", "distill", 90, 100)
    assert written.getvalue().splitlines()[-1] == "de distill: 90/100, time left 0:00:10"


def test_a_terminal_gets_a_table_of_what_is_going_on() -> None:
    written = StringIO()
    with Display(Console(file=written, force_terminal=True, width=100)) as display:
        display.train("de", "pretrain", progress(7))
        display.update("fr", "distill", 5, 20)
        display.end("fr", "distill")
    last = written.getvalue()[written.getvalue().rindex("language") :]
    assert "7/100" in last and "1,234" in last and "5/20" not in last
