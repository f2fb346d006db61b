"""Served prompts are kept only where that is configured and wanted, redacted, and never at a request's cost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from api_client import PROMPT, QUESTION, Json, post
from fake_service import FakeService

from cluster.config import load_config
from cluster.deployment import deploy
from common.settings import SettingsError
from common.traffic import ServedPrompt
from serve.capture import capture as module
from serve.capture import prompts
from serve.capture.capture import QUEUE, Capture
from serve.capture.files import FILE_S, CaptureFiles
from serve.capture.settings import CaptureSettings
from serve.http.api import build_api


class Kept:
    """A capture and what came of it."""

    def __init__(self, folder: Path, service: FakeService, draw: float = 0.0, **settings: Any) -> None:
        self.settings = CaptureSettings(folder=str(folder), **{"share": 0.5, **settings})
        self.counts: Counter[str] = Counter()
        self.capture = Capture(
            self.settings, service.codec, lambda outcome: self.counts.update([outcome]), lambda: draw
        )
        self._service = service
        self._folder = folder

    async def ask(self, path: str, body: Json) -> None:
        transport = httpx.ASGITransport(build_api(self._service, self.capture))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text

    def prompts(self) -> list[ServedPrompt]:
        self.capture.close()
        lines = [line for file in sorted(self._folder.iterdir()) for line in file.read_bytes().splitlines()]
        return [msgspec.json.decode(line, type=ServedPrompt) for line in lines]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


async def test_prompts_are_kept_redacted_with_their_language_and_nothing_else(
    tmp_path: Path, service: FakeService
) -> None:
    kept = Kept(tmp_path / "traffic", service, redact=["Geheim\\w*"])
    user: Json = {"user": "anna", "metadata": {"session": "7"}}
    messages = [{"role": "user", "content": text} for text in ("https://a.example", "家 a@b.example")]
    question = {**QUESTION, "messages": messages, "n": 2, **user}
    await kept.ask("chat/completions", question)
    await kept.ask("completions", PROMPT | {"prompt": ["Geheimnis um 12345678", "zwei"], "language": "de", "n": 2})
    await kept.ask("completions", PROMPT | {"prompt": list(service.codec.encode("drei")), "stream": True})
    assert kept.prompts() == [
        ServedPrompt(
            language="ja",
            prompt="user: [redacted]\nuser: 家 [redacted]\n",
            rendered=True,
            messages=("[redacted]", "家 [redacted]"),
        ),
        ServedPrompt(language="de", prompt="[redacted] um [redacted]"),
        ServedPrompt(language="de", prompt="zwei"),
        ServedPrompt(language="ja", prompt="drei", rendered=True),
    ]
    assert kept.counts == {"stored": 4}
    [file] = (tmp_path / "traffic").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert set(msgspec.json.decode(file.read_bytes().splitlines()[0])) == {"language", "prompt", "rendered", "messages"}


@pytest.mark.parametrize(
    ("draw", "share", "fields", "count"),
    [
        (0.4, 0.5, {}, 1),
        (0.5, 0.5, {}, 0),
        (0.0, 1.0, {"store": False}, 0),
        (0.9, 0.0, {"store": True}, 1),
        (0.0, 0.0, {"store": None}, 0),
        (0.0, 1.0, {"language": "fr"}, 0),
        (0.0, 1.0, {"speculation": "off", "language": None}, 0),
    ],
)
async def test_the_client_decides_first_and_then_the_share_and_the_language(
    tmp_path: Path, service: FakeService, draw: float, share: float, fields: Json, count: int
) -> None:
    kept = Kept(tmp_path, service, draw=draw, share=share, languages=("de", "ja"))
    for path, body in (("completions", PROMPT), ("chat/completions", QUESTION)):
        await kept.ask(path, body | fields)
    assert len(kept.prompts()) == 2 * count


async def test_where_nothing_is_kept_a_client_that_asks_for_it_is_told(service: FakeService) -> None:
    for path, body in (("completions", PROMPT), ("chat/completions", QUESTION)):
        for store, status in ((True, 400), (False, 200), (None, 200)):
            answer = await post(service, path, body | {"store": store})
            assert answer.status_code == status, answer.text
            assert status == 200 or answer.json()["error"]["param"] == "store"


def test_it_is_off_by_default() -> None:
    assert load_config("quickstart").serve.capture is None
    before = threading.active_count()
    build_api(FakeService())
    assert threading.active_count() == before


async def test_a_slow_disk_drops_prompts_and_holds_up_no_request(
    tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, written = threading.Event(), threading.Event()

    def append(files: CaptureFiles, line: bytes) -> None:
        stuck.set()
        assert written.wait(10)

    monkeypatch.setattr(CaptureFiles, "append", append)
    kept = Kept(tmp_path, service)
    await kept.ask("completions", PROMPT)
    assert stuck.wait(10)
    for _ in range(QUEUE + 3):
        await kept.ask("completions", PROMPT)
    assert kept.counts == {"dropped": 3}
    written.set()
    kept.capture.close()
    assert kept.counts == {"dropped": 3, "stored": QUEUE + 1}


async def test_a_disk_that_fails_costs_prompts_and_is_told_once(
    tmp_path: Path, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "traffic"
    kept = Kept(folder, service)
    folder.rmdir()
    for _ in range(3):
        await kept.ask("completions", PROMPT)
    kept.capture.close()
    assert kept.counts == {"dropped": 3}
    assert [record.levelname for record in caplog.records if record.name == module.__name__] == ["ERROR"]


async def test_what_marks_the_ends_of_messages_stays(tmp_path: Path) -> None:
    chat = FakeService(template="{% for m in messages %}<s>{{ m.name }}|{{ m.content }}|{{ tone }}</s>{% endfor %}")
    kept = Kept(tmp_path, chat)
    message = {"role": "user", "content": "https://a.example", "name": "a@b.example"}
    body = QUESTION | {"messages": [message], "chat_template_kwargs": {"tone": "+49 30 1234567", "brief": True}}
    await kept.ask("chat/completions", body)
    await kept.ask("chat/completions", body | {"chat_template_kwargs": {"tone": 4111111111111111}})
    assert {served.prompt for served in kept.prompts()} == {"<s>[redacted]|[redacted]|[redacted]</s>"}


async def test_a_prompt_of_tokens_keeps_the_special_ones(tmp_path: Path, service: FakeService) -> None:
    end = service.codec.encode("")  # what the tokenizer puts around every text, and
    special = [token for token in range(service.codec.vocab_size) if service.codec.bytes_of(token) is None][:1]
    kept = Kept(tmp_path, service)
    await kept.ask("completions", PROMPT | {"prompt": [*special, *service.codec.encode("drei")]})
    [served] = kept.prompts()
    assert served.rendered and served.prompt.endswith("drei") and len(served.prompt) > len("drei"), end


def test_a_file_that_cannot_be_closed_is_not_written_to_again(
    files: tuple[CaptureFiles, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, _ = files
    capture.append(b"first")
    with monkeypatch.context() as patched:
        patched.setattr("os.close", lambda _: (_ for _ in ()).throw(OSError("quota")))
        with pytest.raises(OSError, match="quota"):
            capture.close()
    assert capture._file is None


async def test_what_is_too_long_or_cannot_be_redacted_is_dropped(
    tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MAX_CHARACTERS", 20)
    kept = Kept(tmp_path, service, redact=[r"\[redacted"])
    for prompt in ("a" * 21, "mail a@b.example", "a" * 20):
        await kept.ask("completions", PROMPT | {"prompt": prompt})
    assert [served.prompt for served in kept.prompts()] == ["a" * 20]
    assert kept.counts == {"dropped": 2, "stored": 1}


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = CaptureSettings(folder=str(tmp_path / "file" / "traffic"))
    with pytest.raises(SettingsError, match=r"serve\.capture\.folder .*/file/traffic: .*/file is no folder"):
        settings.check()
    with pytest.raises(SettingsError, match=r"serve\.capture\.folder"):
        Capture(settings, FakeService().codec, lambda outcome: None)
    config = load_config("quickstart", (f"serve.capture.folder={settings.folder}",))
    with pytest.raises(SettingsError, match=r"serve\.capture\.folder"):
        deploy(config, tmp_path, str(tmp_path), tmp_path, [])


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("share=1.5", r"capture`: share is 1\.5"),
        ("folder=traffic", r"folder is `traffic`, must be an absolute path"),
        ("languages=[xx]", "unknown language `xx`"),
        ("keep_days=0", "keep_days is 0"),
        ("redact=['(']", r"capture`: redact\[0\] is not a regular expression"),
        ("folders=/x", "folders"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_config("quickstart", ("serve.capture.folder=/traffic", f"serve.capture.{setting}"))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[CaptureFiles, list[float]]]:
    now = [time.time()]
    settings = CaptureSettings(folder=str(tmp_path), keep_days=1, max_megabytes=0.01)
    made = CaptureFiles(settings, lambda: now[0])
    yield made, now
    made.close()


def test_files_are_ended_and_kept_for_some_time_only(tmp_path: Path, files: tuple[CaptureFiles, list[float]]) -> None:
    capture, now = files
    capture.append(b"first")
    now[0] += FILE_S - 1
    capture.append(b"second")
    now[0] += 1
    capture.append(b"third")
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"first\nsecond\n", b"third\n"}
    now[0] += 86_400
    (tmp_path / "notes.txt").touch()
    capture.prune()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"], "nobody else's files"


def test_the_oldest_go_where_there_is_too_much(tmp_path: Path, files: tuple[CaptureFiles, list[float]]) -> None:
    capture, _ = files
    for number in range(1000):
        capture.append(f"{number:063d}".encode())
    written = sorted(line for path in tmp_path.iterdir() for line in path.read_bytes().splitlines())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 0.01 * 2**20 * 1.1
    assert len(written) > 100 and written[-1] == f"{999:063d}".encode()
