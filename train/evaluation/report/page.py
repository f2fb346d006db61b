"""Writing the report: ``report.md`` with its figures beside it, and ``report.html``, which holds all that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

import msgspec

from train.evaluation.report.claims import claims
from train.evaluation.report.figures import figures
from train.evaluation.report.findings import Findings
from train.evaluation.report.tables import Table, tables

TITLE = "What the drafters are worth"
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 } th { text-align: left; background: #f2f2f2 }
th, td { border: 1px solid #ddd; padding: .25rem .5rem; white-space: nowrap } .table { overflow-x: auto }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto } pre { background: #f7f7f7; overflow-x: auto }
"""


def write_report(findings: Findings, folder: Path) -> list[Path]:
    """Returns the files that were written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = dict(figures(findings))
    contents = {f"{name}.svg": svg for name, svg in drawn.items()}
    contents["report.md"] = "\n".join(_markdown(findings, list(drawn)))
    contents["report.html"] = "\n".join(_html(findings, drawn))
    for name, text in contents.items():
        (folder / name).write_text(text + "\n", encoding="utf8")
    return [folder / name for name in contents]


def _markdown(findings: Findings, names: list[str]) -> Iterator[str]:
    yield f"# {TITLE}\n"
    yield from (f"- {claim}" for claim in claims(findings))
    yield from (f"\n![{name}]({name}.svg)" for name in names)
    for table in tables(findings):
        yield f"\n## {table.title}\n"
        yield _row(table.columns)
        yield _row(["---"] * len(table.columns))
        yield from map(_row, table.rows)
        yield f"\n{table.note}"
    yield "\n## Where it comes from\n"
    yield from (f"- {line}" for line in _provenance(findings))


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html(findings: Findings, drawn: dict[str, str]) -> Iterator[str]:
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{TITLE}</title><style>{STYLE}</style>'
    yield f"<h1>{TITLE}</h1><ul>"
    yield from (f"<li>{escape(claim)}</li>" for claim in claims(findings))
    yield "</ul>"
    # Without the XML declaration, which may stand only at a file's beginning.
    yield from (f"<figure>{svg[svg.index('<svg') :]}</figure>" for svg in drawn.values())
    yield from map(_html_table, tables(findings))
    yield "<h2>Where it comes from</h2><ul>"
    yield from (f"<li>{escape(line)}</li>" for line in _provenance(findings))
    yield "</ul></html>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2><div class="table"><table><tr>{head}</tr>{body}</table></div>'
        f"<p>{escape(table.note)}</p>"
    )


def _provenance(findings: Findings) -> Iterator[str]:
    """Every row of a study's tables has its study's."""
    for study, facts in findings.provenance.items():
        shown = {name: facts[name] for name in ("created", "git_revision", "command", "versions", "machine")}
        yield f"{study}: {msgspec.json.encode(shown).decode()}"
