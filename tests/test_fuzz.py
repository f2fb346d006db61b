"""The HTTP surface under the requests that its own OpenAPI document describes, and under ones that it forbids."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import schemathesis
from fake_service import FakeService
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from serve.http.api import build_api
from serve.http.protection import ProtectionSettings, protect

SERVICE = FakeService("one two three")
SERVICE.context_length = 512
APP = protect(build_api(SERVICE), ProtectionSettings())
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
OPERATIONS = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}
TIMEOUT_S = 30
"""Of one request; the fake takes milliseconds."""
NUM_CASES = {
    ("POST /v1/completions", GenerationMode.POSITIVE): 850,
    ("POST /v1/completions", GenerationMode.NEGATIVE): 150,
    ("POST /v1/chat/completions", GenerationMode.POSITIVE): 850,
    ("POST /v1/chat/completions", GenerationMode.NEGATIVE): 150,
    ("GET /v1/models/{model}", GenerationMode.POSITIVE): 50,
    ("GET /v1/models", GenerationMode.POSITIVE): 1,
    ("GET /healthz", GenerationMode.POSITIVE): 1,
}


@pytest.fixture(autouse=True)
def _no_log_of_refusals() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_every_operation_is_covered_by_enough_cases() -> None:
    assert {label for label, _ in NUM_CASES} == set(OPERATIONS)
    assert sum(NUM_CASES.values()) >= 2000


@pytest.mark.parametrize(("label", "mode"), NUM_CASES, ids=lambda value: str(getattr(value, "value", value)))
def test_whatever_is_asked_the_answer_is_no_server_error_and_nothing_goes_on(label: str, mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=NUM_CASES[label, mode],
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode), seed=st.integers(0, 2**32))
    def ask(case: Case, seed: int) -> None:
        if isinstance(case.body, dict) and seed % 100:
            _simplify(case.body, Random(seed))
        response = case.call(timeout=TIMEOUT_S)
        statuses[response.status_code] += 1
        _check(response.status_code, response.text)

    ask()
    assert statuses.total() >= NUM_CASES[label, mode]
    if label.startswith("POST") and mode is GenerationMode.POSITIVE:
        assert statuses[200] >= statuses.total() / 4, statuses


def _simplify(body: dict[str, Any], random: Random) -> None:
    """Most requests would end at their model's name, or at one of dozens of fields; let them get further."""
    if "model" in body:
        body["model"] = SERVICE.model
    optional = sorted(set(body) - {"model", "prompt", "messages"})
    for name in random.sample(optional, max(0, len(optional) - random.randrange(4))):
        del body[name]


def _check(status: int, text: str) -> None:
    assert status < 500, text
    assert (status == 200) == (not text.startswith('{"error":')), text
    assert SERVICE.open == 0, "a generation goes on"
    assert all(generation.ag_frame is None for generation in SERVICE.generations), "a generation was not closed"
    SERVICE.generations.clear()


def test_the_check_fails_on_a_server_error_and_on_a_generation_that_goes_on() -> None:
    with pytest.raises(AssertionError, match="oops"):
        _check(500, '{"error": "oops"}')
    left: Any = SERVICE.generate(None)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="not closed"):
        _check(200, "")
    SERVICE.generations.clear()
    del left
