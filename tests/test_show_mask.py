from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.text import Text

from cluster.show_mask import marked_documents, show_mask
from common.settings import SettingsError
from tests.tiny_tokenizer import byte_level
from train.packing import Document, PackedRows, pack

ANSWERED = [("Das Haus ist schön.\n", "small"), ("東京に住んで\n", "house")]


def packed(answered: list[tuple[str, str]]) -> PackedRows:
    tokenizer = byte_level()
    prompts, answers = ([tokenizer(pair[side])["input_ids"] for pair in answered] for side in (0, 1))
    documents = [Document([*p, *a], len(p)) for p, a in zip(prompts, answers, strict=True)]
    return pack(documents, 64, seed=0, answers_only=True)


def learned(text: Text) -> str:
    return "".join(text.plain[span.start : span.end] for span in text.spans if span.style == "green underline")


def test_what_has_a_loss_is_highlighted_and_nothing_else() -> None:
    shown = list(marked_documents(packed(ANSWERED), byte_level()))
    assert sorted((text.plain, learned(text)) for text in shown) == sorted((p + a, a) for p, a in ANSWERED)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with rows of one language and the least that makes it a trained one."""
    byte_level().save_pretrained(tmp_path / "target" / "model")
    packed(ANSWERED).save(tmp_path / "de" / "finetune" / "rows")
    return tmp_path


def test_documents_and_counts_of_a_run_are_shown(run_folder: Path) -> None:
    options = ["--run", str(run_folder), "--language", "de", "--count", "1"]
    output = CliRunner().invoke(show_mask, options, catch_exceptions=False).output
    assert (output.count("⟦") == 1 and "⟦small⟧" in output) or "⟦house⟧" in output
    assert "de/finetune" in output and "2 documents" in output and "pretrain" not in output


def test_a_run_without_rows_of_the_language_is_named(run_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"--language fr: no training rows in .*fr/pretrain/rows"):
        CliRunner().invoke(show_mask, ["--run", str(run_folder), "--language", "fr"], catch_exceptions=False)
