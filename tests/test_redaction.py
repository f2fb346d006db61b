"""What is taken out of a prompt before it is kept."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.capture.redaction import MARK, PATTERNS, Redactor

REDACTOR = Redactor()
PIECES = st.sampled_from(
    [
        *("\n", "www.", "http://", "GB82", "WEST", "DE89", "3704", "0044", "a", "müller", "家", "127.0.0.1"),
        *("fe80:", "sk-", "deadbeef01" * 4, "٣٤٥٦٧٨٩", MARK, *"@:./+-_()= "),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Mail anna.müller@example.com, please", "Mail [redacted] please"),
        ("see https://a.example/x?token=1 or WWW.b.example", "see [redacted] or [redacted]"),
        ("call +49 (0)30 / 123-4567 now", "call [redacted] now"),
        ("card 4111 1111 1111 1111.", "card [redacted]."),
        ("GB82 WEST 1234 5698 7654 32", "[redacted]"),
        ("from 192.168.0.17 and 2001:db8:0:0:1::1", "from [redacted] and [redacted]"),
        ("key sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5", "key [redacted]"),
        ("電話は０３−１２３４５６７８", "電話は[redacted]"),
        ("١٢٣٤٥٦٧٨", "[redacted]"),
    ],
)
def test_persons_and_secrets_are_taken_out(text: str, left: str) -> None:
    assert REDACTOR.redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "Das Haus ist 120 Jahre alt und kostet 250.000 Euro.",
        "Am 24. Dezember 2025 um 18:30 Uhr",
        "Donaudampfschifffahrtsgesellschaftskapitaen",
        "IN ALL CAPITALS, EU27 INCLUDED",
        "a @ b",
        "----------------------------------------",
        "東京に住んでいます。",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert REDACTOR.redact(text) == text


@given(TEXTS)
def test_nothing_that_a_pattern_finds_is_left(text: str) -> None:
    left = REDACTOR.redact(text)
    assert not [name for name, pattern in PATTERNS.items() if re.search(pattern, left)]
    assert REDACTOR.redact(left) == left


@given(TEXTS, st.sampled_from(["a+", "[a-c]", r"\bGB\d", "e.a", "[^x]"]))
def test_nothing_that_an_own_pattern_finds_is_left(text: str, pattern: str) -> None:
    try:
        left = Redactor([pattern]).redact(text)
    except ValueError:
        return  # not kept at all
    assert not re.search(pattern, left)


@pytest.mark.parametrize("unit", ["a", "1 ", "@", "A1", "1:", "a:", "www", "家", "1.1."])
def test_a_long_hostile_text_takes_no_longer_than_its_length(unit: str) -> None:
    def taken(characters: int) -> float:
        began = time.thread_time()
        Redactor().redact(unit * (characters // len(unit)))
        return time.thread_time() - began

    assert taken(32_768) < 20 * min(taken(4_096) for _ in range(3)) + 0.05, "8 times as long; quadratic would be 64"


@pytest.mark.parametrize("address", ["2001:db8::1", "fe80::1", "::1", "2001:db8::", "v10.0.0.1", "1:2:3:4:5:6:7:8"])
def test_addresses_in_all_their_forms_are_taken_out(address: str) -> None:
    assert not any(digits in REDACTOR.redact(f"host {address} is") for digits in ("db8", "fe80", ":1", ".1", "7:8"))


@pytest.mark.parametrize("text", ["std::vector", "x :: Int", "18:30:00", "1:1"])
def test_what_only_looks_like_an_address_stays(text: str) -> None:
    assert REDACTOR.redact(text) == text


@pytest.mark.parametrize(
    ("own", "problem"), [(["x", "("], r"redact\[1\] is not a regular"), (["a*"], r"redact\[0\] matches")]
)
def test_a_pattern_that_cannot_be_used_is_refused_by_its_place(own: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Redactor(own)
