"""A language model as judge: what it says is read, asked again, kept, and counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from lab_run import LANGUAGES, make_lab, make_run, settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from common.settings import SettingsError
from train.distillation.settings import EndpointSettings
from train.evaluation.lab import Lab
from train.evaluation.report.findings import read_findings
from train.evaluation.report.tables import tables
from train.evaluation.settings import JudgeSettings
from train.evaluation.studies import judge
from train.evaluation.studies.judge import Case, JudgeError, Judgement, Judgements, JudgeReport


class Judge(uvicorn.Server):
    """Answers chats with what `opinion` makes of the message; counts them."""

    def __init__(self) -> None:
        routes = [Route("/v1/chat/completions", self._chat, methods=["POST"])]
        super().__init__(uvicorn.Config(Starlette(routes=routes), port=0, log_level="critical"))
        self.listening = threading.Event()
        self.opinion: Callable[[str], str] = fair
        self.asked: list[str] = []
        self.fails_after: int | None = None

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self.listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"

    async def _chat(self, request: Request) -> JSONResponse:
        message = (await request.json())["messages"][0]["content"]
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            return JSONResponse({"error": {"message": "quota exceeded"}}, status_code=403)
        self.asked.append(message)
        choice = {"index": 0, "message": {"role": "assistant", "content": self.opinion(message)}}
        return JSONResponse({"id": "x", "object": "chat.completion", "created": 0, "model": "j", "choices": [choice]})


def fair(message: str) -> str:
    """Grades by length, and prefers the longer answer, wherever it stands."""
    if "[Answer A]" not in message:
        return f"Fine. [[{1 + len(message.partition('[Answer]')[2]) % 10}]]"
    first, _, second = message.partition("[Answer A]")[2].partition("[Answer B]")
    first, second = first.strip(), second.strip()
    return "[[C]]" if len(first) == len(second) else f"Well. [[{'A' if len(first) > len(second) else 'B'}]]"


@pytest.fixture(scope="module")
def server() -> Iterator[Judge]:
    server = Judge()
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.listening.wait(30)
    yield server
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def lab(server: Judge, tmp_path: Path) -> Lab:
    server.asked.clear()
    server.opinion, server.fails_after = fair, None
    endpoint = EndpointSettings(base_url=server.url, model="j", max_retries=0)
    chosen = JudgeSettings(endpoint=endpoint, questions=3, attempts=2, usd_per_million_tokens=10.0)
    return make_lab(make_run(tmp_path), settings(judge=chosen))


def report(lab: Lab) -> JudgeReport:
    found = read_findings(lab.folder).judge
    assert found is not None
    return found


def test_grades_and_choices_are_counted(lab: Lab, server: Judge) -> None:
    said = list(judge.run(lab))
    assert any("asking j 24 times" in line and "USD" in line for line in said)
    assert len(server.asked) == 4 * 3 * len(LANGUAGES)
    for found in report(lab).languages.values():
        assert found.graded == found.wins + found.ties + found.losses == 3
        assert found.without_verdict == 0 and found.difference is not None
    assert [table.title for table in tables(read_findings(lab.folder))] == ["Judged by j"]
    assert list(judge.run(lab)) == [] and len(server.asked) == 4 * 3 * len(LANGUAGES)


def test_a_judge_that_always_prefers_the_first_decides_nothing(lab: Lab, server: Judge) -> None:
    server.opinion = lambda message: "[[A]]"
    list(judge.run(lab))
    for found in report(lab).languages.values():
        assert (found.wins, found.ties, found.losses) == (0, 3, 0)
        assert found.graded == 0 and found.plain_grade is None, "a letter is no grade"
        assert found.without_verdict == 6


def test_nonsense_is_asked_again_as_often_as_allowed(lab: Lab, server: Judge) -> None:
    server.opinion = lambda message: "Lovely weather. [[11]] [[D]]"
    list(judge.run(lab))
    assert len(server.asked) == 2 * 4 * 3 * len(LANGUAGES)
    assert all(found.without_verdict == 12 for found in report(lab).languages.values())


def test_what_was_judged_before_a_failure_is_not_asked_again(lab: Lab, server: Judge) -> None:
    server.fails_after = 10
    with pytest.raises(JudgeError, match=r"HTTP 403: .*quota exceeded.*what was judged is kept"):
        list(judge.run(lab))
    server.fails_after = None
    list(judge.run(lab))
    assert len(server.asked) == len(set(server.asked)) == 4 * 3 * len(LANGUAGES)
    assert sum(found.without_verdict for found in report(lab).languages.values()) == 0


def test_what_is_under_way_when_one_fails_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    async def ask(client: object, case: Case, settings: JudgeSettings) -> Judgement:
        asked.append(case.question)
        if case.question == "0":
            raise JudgeError("quota exceeded")
        for _ in range(20):  # turns of the loop, so that the failure comes first
            await asyncio.sleep(0)
        return Judgement(key=case.key, verdict="5", answer="")

    monkeypatch.setattr(judge, "_ask", ask)
    cases = [Case(language="de", question=str(n), kind="grade", subject="plain", message="") for n in range(9)]
    chosen = JudgeSettings(endpoint=EndpointSettings(base_url="http://127.0.0.1:1", model="j"), concurrency=4)
    book = Judgements(tmp_path / "judgements.jsonl")
    with pytest.raises(JudgeError, match="quota"):
        asyncio.run(judge._ask_all(cases, chosen, book))
    assert asked == ["0", "1", "2", "3"]
    assert [case.question for case in cases if case.key in book] == ["1", "2", "3"]


def test_a_missing_key_is_named(server: Judge, tmp_path: Path) -> None:
    endpoint = EndpointSettings(base_url=server.url, model="j", api_key_env="NO_SUCH_KEY")
    lab = make_lab(make_run(tmp_path), settings(judge=JudgeSettings(endpoint=endpoint, questions=1)))
    with pytest.raises(SettingsError, match="NO_SUCH_KEY is not set"):
        list(judge.run(lab))


def test_without_a_judge_nothing_is_done(tmp_path: Path) -> None:
    assert list(judge.run(make_lab(make_run(tmp_path), settings()))) == []
