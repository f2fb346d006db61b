"""Log-probabilities, in both endpoints' forms, whole and streamed."""

from __future__ import annotations

import pytest
from api_client import PROMPT, QUESTION, Json, events, post
from fake_service import FakeService

from common.types import TokenLogprob
from serve.http.answer_formats import ChatFormat
from serve.http.choices import TextToken


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def merged(response_choices: list[Json]) -> Json:
    """The logprobs of a streamed choice, put together; None if there are none."""
    told = [choice["logprobs"] for choice in response_choices if choice["logprobs"] is not None]
    return {name: [entry for part in told for entry in part[name] or []] for name in (told[0] if told else {})}


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_tells_token_logprob_bytes_and_the_likeliest(service: FakeService, stream: bool) -> None:
    body = QUESTION | {"logprobs": True, "top_logprobs": 2, "stream": stream}
    response = await post(service, "chat/completions", body)
    told = [chunk["choices"][0] for chunk in (events(response) if stream else [response.json()])]
    content, codec = merged(told)["content"], service.codec
    assert service.requests[0].sampling.logprobs == 2
    tokens = (*service.codec.encode(service.answer), 1)
    assert [entry["logprob"] for entry in content] == [-n / 10 for n in range(len(tokens))]
    assert [entry["token"] for entry in content] == [service.codec.name(token) for token in tokens]
    assert b"".join(bytes(entry["bytes"] or []) for entry in content).decode() == service.answer
    top = [
        {"token": codec.name(5 + i), "logprob": -1.0 - i, "bytes": list(codec.bytes_of(5 + i) or b"")} for i in range(2)
    ]
    assert [entry["top_logprobs"] for entry in content] == [top] * len(tokens)


async def test_half_a_character_has_bytes_and_no_text_of_its_own(service: FakeService) -> None:
    answer = (await post(service, "chat/completions", QUESTION | {"logprobs": True})).json()
    first = answer["choices"][0]["logprobs"]["content"][0]
    spelling = service.codec.bytes_of(service.codec.encode("東")[0])
    assert spelling is not None and len(spelling) < 3
    assert first["bytes"] == list(spelling)
    assert first["token"] == "".join(f"\\x{byte:02x}" for byte in spelling)
    assert first["top_logprobs"] == []


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_tell_tokens_logprobs_the_likeliest_and_offsets(service: FakeService, stream: bool) -> None:
    response = await post(service, "completions", PROMPT | {"logprobs": 2, "stream": stream})
    told = [chunk["choices"][0] for chunk in (events(response) if stream else [response.json()])]
    logprobs = merged(told)
    tokens = (*service.codec.encode(service.answer), 1)
    names = [service.codec.name(token) for token in tokens]
    assert logprobs["tokens"] == names
    assert logprobs["token_logprobs"] == [-n / 10 for n in range(len(tokens))]
    likeliest = {service.codec.name(5): -1.0, service.codec.name(6): -2.0}
    assert logprobs["top_logprobs"] == [likeliest | {name: -n / 10} for n, name in enumerate(names)]
    offsets, before = logprobs["text_offset"], [service.codec.decode(tokens[:n]) for n in range(len(tokens))]
    whole = [n for n, text in enumerate(before) if not text.endswith("\ufffd")]
    assert [offsets[n] for n in whole] == [len(before[n]) for n in whole]
    assert offsets == sorted(offsets) and len(offsets) == len(tokens)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_token_that_counts_has_a_logprob_also_at_a_stop_string(service: FakeService, stream: bool) -> None:
    body = PROMPT | {"logprobs": 0, "stop": "住", "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    response = await post(service, "completions", body)
    told = events(response) if stream else [response.json()]
    choices = [choice for chunk in told for choice in chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == "東京に"
    counted = service.codec.encode("東京に住")
    assert merged(choices)["tokens"] == [service.codec.name(token) for token in counted]
    assert told[-1]["usage"]["completion_tokens"] == len(counted)


@pytest.mark.parametrize(("path", "body"), [("completions", PROMPT), ("chat/completions", QUESTION)])
async def test_without_being_asked_for_logprobs_are_null(service: FakeService, path: str, body: Json) -> None:
    assert (await post(service, path, body)).json()["choices"][0]["logprobs"] is None
    chunks = events(await post(service, path, body | {"stream": True}))
    assert {str(chunk["choices"][0]["logprobs"]) for chunk in chunks} == {"None"}
    assert all(request.sampling.logprobs is None for request in service.requests)


async def test_zero_asks_for_the_tokens_own_logprobs_only(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"logprobs": 0})).json()
    logprobs = answer["choices"][0]["logprobs"]
    assert [list(top) for top in logprobs["top_logprobs"]] == [[name] for name in logprobs["tokens"]]


def test_an_impossible_token_is_told_as_a_number(service: FakeService) -> None:
    impossible = TokenLogprob(5, float("-inf"), ((6, float("-inf")),))
    (entry,) = ChatFormat(service.codec).logprobs([TextToken(5, impossible, 0)])["content"]
    assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] == -9999.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_tokens", [False, True])
async def test_an_echoed_prompt_is_told_like_the_text_but_for_its_first_token(
    service: FakeService, stream: bool, as_tokens: bool
) -> None:
    text, codec = "家は小さい", service.codec
    prompt, output = codec.encode(text), (*codec.encode(service.answer), 1)
    body = PROMPT | {"prompt": list(prompt) if as_tokens else text, "echo": True, "logprobs": 2, "stream": stream}
    response = await post(service, "completions", body)
    choices = [chunk["choices"][0] for chunk in (events(response) if stream else [response.json()])]
    assert "".join(choice["text"] for choice in choices) == text + service.answer
    logprobs = merged(choices)
    names = [codec.name(token) for token in (*prompt, *output)]
    assert logprobs["tokens"] == names
    values = [*(-float(n) for n in range(1, len(prompt))), *(-n / 10 for n in range(len(output)))]
    assert logprobs["token_logprobs"] == [None, *values]
    likeliest = {codec.name(5): -1.0, codec.name(6): -2.0}
    told = [likeliest | {name: value} for name, value in zip(names[1:], values, strict=True)]
    assert logprobs["top_logprobs"] == [None, *told]
    offsets = logprobs["text_offset"]
    assert offsets[len(prompt)] == len(text)
    assert offsets[: len(prompt)] == codec.offsets(prompt)
    assert [offset - len(text) for offset in offsets[len(prompt) :]] == codec.offsets(output)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["家は小さい", [5]])
async def test_a_prompt_can_be_scored_without_an_output(
    service: FakeService, stream: bool, prompt: str | list[int]
) -> None:
    body = PROMPT | {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0, "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    response = await post(service, "completions", body)
    told = events(response) if stream else [response.json()]
    choices = [choice for chunk in told for choice in chunk["choices"]]
    tokens = list(service.codec.encode(prompt)) if isinstance(prompt, str) else prompt
    assert "".join(choice["text"] for choice in choices) == service.codec.decode(tokens)
    assert merged(choices)["token_logprobs"] == [None, *(-float(n) for n in range(1, len(tokens)))]
    assert choices[-1]["finish_reason"] == "length"
    usage = told[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(tokens), 0)


async def test_a_prompt_can_be_echoed_alone(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"echo": True, "max_tokens": 0})).json()
    (choice,) = answer["choices"]
    assert (choice["text"], choice["logprobs"], choice["finish_reason"]) == (PROMPT["prompt"], None, "length")
    assert service.rounds == 0


async def test_each_prompt_and_each_choice_is_told_for_itself(service: FakeService) -> None:
    body = PROMPT | {"prompt": ["家は", "house"], "n": 2, "echo": True, "logprobs": 0, "max_tokens": 1}
    choices = (await post(service, "completions", body)).json()["choices"]
    assert all(request.prompt_logprobs for request in service.requests)
    for choice, text in zip(choices, ["家は", "家は", "house", "house"], strict=True):
        names = [service.codec.name(token) for token in service.codec.encode(text)]
        assert choice["logprobs"]["tokens"][:-1] == names
        assert choice["text"].startswith(text)


async def test_an_engine_that_forgets_logprobs_is_our_own_error(service: FakeService) -> None:
    service.forgets_logprobs = True
    response = await post(service, "completions", PROMPT | {"logprobs": 0})
    assert (response.status_code, service.open) == (500, 0)
