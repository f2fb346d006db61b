"""`polydraft show-mask`: which tokens of a run's training documents have a loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from cluster.options import run_of, run_options
from common.settings import SettingsError
from train.rows import IGNORED, PackedRows, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STAGES = ("pretrain", "finetune")


@click.command("show-mask")
@run_options
@click.option("--language", required=True, help="Whose training documents; a name that the run has a folder for.")
@click.option("--count", default=3, show_default=True, type=click.IntRange(min=1), help="Documents of each stage.")
def show_mask(config_name: str, data: str, language: str, count: int, **options: Any) -> None:
    """Print some training documents of a run, the tokens that have a loss underlined (off a terminal: ⟦…⟧)."""
    from common.models import load_tokenizer

    run = run_of(config_name, **options)
    run.check_trained()
    folders = {stage: run.folder / language / stage / "rows" for stage in STAGES}
    prepared = {stage: folder for stage, folder in folders.items() if folder.exists()}
    if not prepared:
        raise SettingsError(f"--language {language}: no training rows in {' or '.join(map(str, folders.values()))}")
    tokenizer = load_tokenizer(run.target)
    console = Console(highlight=False, soft_wrap=True)
    for stage, folder in prepared.items():
        rows = PackedRows.load(folder)
        console.print(f"[bold]{language}/{stage}[/bold]  {_counts(rows)}")
        marks = ("", "") if console.is_terminal else ("⟦", "⟧")
        for document in islice(marked_documents(rows, tokenizer, marks), count):
            console.print(document)


def marked_documents(
    rows: PackedRows, tokenizer: PreTrainedTokenizerFast, marks: tuple[str, str] = ("", "")
) -> Iterator[Text]:
    """The text of every document, row by row; what has a loss is green, underlined and between `marks`."""
    for row in range(len(rows.input_ids)):
        for span in rows.document_spans(row):
            yield _marked(rows.input_ids[row, span], rows.labels[row, span] != IGNORED, tokenizer, marks)


def _marked(
    tokens: Rows, learned: npt.NDArray[np.bool_], tokenizer: PreTrainedTokenizerFast, marks: tuple[str, str]
) -> Text:
    """Whole stretches are decoded: a character may be made of several tokens."""
    text = Text()
    for has_loss, places in groupby(range(len(tokens)), key=lambda place: bool(learned[place])):
        before, after = marks if has_loss else ("", "")
        style = "green underline" if has_loss else "dim"
        text.append(f"{before}{tokenizer.decode(tokens[list(places)])}{after}", style=style)
    return text


def _counts(rows: PackedRows) -> str:
    report = rows.report
    return (
        f"{report.documents:,} documents, {report.tokens:,} tokens, {report.loss_tokens:,} with a loss "
        f"({report.loss_tokens / report.tokens:.1%}), {report.split:,} split, {report.without_loss:,} without loss "
        f"dropped, padding {report.padding_share:.1%}"
    )
