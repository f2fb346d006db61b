"""What makes a site of documents that are written to be read in a checkout.

Links to source files lead to pages that show them, and a list that follows a paragraph without an empty line is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
LINK = re.compile(r"(?<=\]\()\.\./[^)#\s]+(?=\))")
BEGINS_LIST = re.compile(r"- |1\. ")
IN_LIST = re.compile(r"\s|- |\d+\. ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called once, before any page is made."""
    linked = {path for page in files.documentation_pages() for path in _sources(page.src_uri, page.content_string)}
    for path in sorted(linked):
        files.append(File.generated(config, _page_of(path), content=_content(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called for each page."""
    here = page.file.src_uri

    def lead(match: re.Match[str]) -> str:
        path = _source(here, match[0])
        return match[0] if path is None else relpath(_page_of(path), dirname(here) or ".")

    return "\n".join(_with_lists(LINK.sub(lead, markdown).split("\n")))


def _sources(page: str, markdown: str) -> Iterator[str]:
    """The source files that a page links to, from the root of the repository."""
    found = (_source(page, link) for link in LINK.findall(markdown))
    return (path for path in found if path is not None)


def _source(page: str, link: str) -> str | None:
    path = normpath(join("docs", dirname(page), link))
    return None if path.startswith("docs/") or not (ROOT / path).is_file() else path


def _page_of(source: str) -> str:
    return f"source/{source}.md"


def _content(source: str) -> str:
    text = (ROOT / source).read_text(encoding="utf8")
    language = Path(source).suffix.removeprefix(".") or "text"
    return f"---\nsearch: {{exclude: true}}\n---\n# {Path(source).name}\n\n`{source}`\n\n````{language}\n{text}\n````\n"


def _with_lists(lines: list[str]) -> Iterator[str]:
    """Python-Markdown wants an empty line before a list, GitHub does not."""
    fenced, before = False, ""
    for line in lines:
        fenced ^= line.startswith("```")
        if not fenced and before and BEGINS_LIST.match(line) and not IN_LIST.match(before):
            yield ""
        yield line
        before = line
