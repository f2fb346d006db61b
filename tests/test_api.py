"""The HTTP surface: OpenAI's requests, answers and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from api_client import PROMPT, QUESTION, client, events, http, post
from fake_service import FakeService

from common.types import GenerationRequest, Progress, SamplingParams, SpeculationStats
from serve.http.choices import Choice


@pytest.fixture
def service() -> FakeService:
    return FakeService()


async def test_a_completion_tells_text_usage_and_speculation(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"seed": 7, "temperature": 0})).json()
    tokens = len(service.codec.encode(service.answer)) + 1
    prompt = len(service.codec.encode(PROMPT["prompt"]))
    rounds = (tokens + 1) // 2
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"index": 0, "text": service.answer, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    ]
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "completion_tokens_details": {"accepted_prediction_tokens": rounds, "rejected_prediction_tokens": 2 * rounds},
    }
    assert answer["polydraft"] == {
        "language": "ja",
        "drafter": "v0001",
        "rounds": rounds,
        "mean_acceptance_length": round(tokens / rounds, 4),
        "seed": 7,
        "draft_ms": float(rounds),
        "verify_ms": 2.0 * rounds,
        "wire_ms": 0.5 * rounds,
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_token_ends_the_text_and_is_not_in_it(stream: bool) -> None:
    service = FakeService("one two")
    tokens = service.codec.encode(service.answer)
    body = PROMPT | {"stop_token_ids": [tokens[3], 1], "stream": stream}
    response = await post(service, "completions", body)
    told = events(response) if stream else [response.json()]
    last = told[-1]["choices"][0]
    assert "".join(chunk["choices"][0]["text"] for chunk in told) == service.codec.decode(tokens[:3])
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", tokens[3])
    assert service.requests[0].stop_token_ids == {tokens[3], 1}


async def test_the_end_of_the_text_is_no_reason_unless_it_was_to_be_ignored(service: FakeService) -> None:
    for fields, reason in (({"stop_token_ids": [1]}, None), ({"stop_token_ids": [1], "ignore_eos": True}, 1)):
        answer = (await post(service, "completions", PROMPT | fields)).json()["choices"][0]
        assert (answer["finish_reason"], answer["stop_reason"]) == ("stop", reason)


async def test_the_end_of_the_text_can_be_ignored(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"ignore_eos": True})).json()
    assert service.requests[0].stop_token_ids == frozenset()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["text"].startswith(service.answer + service.answer[:5])
    assert answer["usage"]["completion_tokens"] == 40


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_tokens", [False, True])
async def test_the_prompt_can_be_echoed(service: FakeService, stream: bool, as_tokens: bool) -> None:
    prompt = list(service.codec.encode("家は")) if as_tokens else "家は"
    response = await post(service, "completions", PROMPT | {"prompt": prompt, "echo": True, "stream": stream})
    told = events(response) if stream else [response.json()]
    assert "".join(chunk["choices"][0]["text"] for chunk in told) == "家は" + service.answer


async def test_a_stream_may_tell_the_usage_so_far_on_every_chunk(service: FakeService) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = events(await post(service, "completions", PROMPT | {"stream": True, "stream_options": options}))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] < counts[-1] == last["usage"]["completion_tokens"]
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {last["usage"]["prompt_tokens"]}


async def test_the_official_client_gets_whole_answers(service: FakeService) -> None:
    async with client(service) as session:
        chat = await session.chat.completions.create(**QUESTION)
        completion = await session.completions.create(**PROMPT)
        models = await session.models.list()
        model = await session.models.retrieve("fake")
    assert chat.choices[0].message.content == completion.choices[0].text == service.answer
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage is not None and chat.usage.completion_tokens_details is not None
    assert chat.usage.completion_tokens_details.accepted_prediction_tokens == service.rounds / 2
    assert chat.model_extra is not None and chat.model_extra["polydraft"]["drafter"] == "v0001"
    assert [card.id for card in models.data] == [model.id] == ["fake"]
    assert model.model_extra is not None and model.model_extra["languages"] == ["de", "ja"]


async def test_the_official_client_reads_a_streamed_chat(service: FakeService) -> None:
    async with client(service) as session:
        stream = await session.chat.completions.create(**QUESTION, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    *texts, last, usage = chunks
    assert texts[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in texts) == service.answer
    assert not any("\ufffd" in (chunk.choices[0].delta.content or "") for chunk in texts)
    assert {chunk.choices[0].finish_reason for chunk in texts} == {None}
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra is not None and last.model_extra["polydraft"]["rounds"] == service.rounds
    assert usage.choices == [] and usage.usage is not None
    assert usage.usage.completion_tokens == len(service.codec.encode(service.answer)) + 1
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


async def test_the_official_client_reads_a_streamed_completion(service: FakeService) -> None:
    async with client(service) as session:
        stream = await session.completions.create(**PROMPT, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == service.answer
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].model_extra == {}, "why it stopped is told at the end"


async def test_max_tokens_ends_the_text_with_length(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"max_tokens": 3})).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_text_and_the_generation(stream: bool) -> None:
    service = FakeService("one two three four five six seven")
    response = await post(service, "completions", PROMPT | {"stop": [" three", "zzz"], "stream": stream})
    if stream:
        chunks = events(response)
        text, reason = "".join(chunk["choices"][0]["text"] for chunk in chunks), chunks[-1]["choices"][0]
    else:
        text, reason = response.json()["choices"][0]["text"], response.json()["choices"][0]
        assert response.json()["usage"]["completion_tokens"] == len(service.codec.encode("one two three"))
    assert (text, reason["finish_reason"], reason["stop_reason"]) == ("one two", "stop", " three")
    assert service.closed.is_set()
    assert service.rounds < len(service.codec.encode(service.answer)) // 2


async def test_usage_ends_with_the_token_that_a_stop_string_ends_in() -> None:
    """The last round brought two tokens more, and one of its accepted ones is among them."""
    service = FakeService("one two three four five six seven")
    stop = service.codec.decode(service.codec.encode(service.answer)[4:5])
    answer = (await post(service, "completions", PROMPT | {"stop": stop})).json()
    assert service.rounds == 3 and answer["usage"]["completion_tokens"] == 5
    assert answer["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] == 3
    assert answer["polydraft"]["mean_acceptance_length"] == round(5 / 3, 4)


async def test_an_accepted_token_after_a_stop_string_is_not_counted() -> None:
    codec = FakeService().codec
    digits = codec.encode("12345")
    round_of_two = SpeculationStats(rounds=1, drafted_tokens=4, accepted_tokens=1, output_tokens=2)
    round_of_three = SpeculationStats(rounds=1, drafted_tokens=4, accepted_tokens=3, output_tokens=3)

    async def generate(request: GenerationRequest) -> AsyncIterator[Progress]:
        yield Progress(tokens=digits[:2], stats=round_of_two)
        yield Progress(tokens=digits[2:], stats=round_of_two + round_of_three)

    request = GenerationRequest(prompt=(5,), max_tokens=40, sampling=SamplingParams())
    choice = Choice(0, request, codec.detokenizer(["4"]))
    assert "".join([piece.text async for piece in choice.write(generate)]) == "123"
    assert choice.stats == SpeculationStats(rounds=2, drafted_tokens=8, accepted_tokens=3, output_tokens=4)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_only_looked_like_a_stop_string_is_told_at_the_end(stream: bool) -> None:
    response = await post(FakeService("wait: EN"), "completions", PROMPT | {"stop": "END", "stream": stream})
    texts = [chunk["choices"][0]["text"] for chunk in (events(response) if stream else [response.json()])]
    assert "".join(texts) == "wait: EN"


async def test_health_follows_the_service(service: FakeService) -> None:
    async with http(service) as session:
        assert (await session.get("/healthz")).json() == {"status": "ok"}
        service.is_healthy = False
        response = await session.get("/healthz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "service_unavailable")
