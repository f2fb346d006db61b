"""A language model as judge of texts written with and without drafts, as MT-Bench asks it (Zheng et al. 2023,
arXiv 2306.05685): a grade from 1 to 10 for each text alone, and the better of two, asked in both orders.

The texts are of one law if speculation is lossless, so no difference is to be found beyond chance.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import openai

from train.evaluation.intervals import Interval, difference_of_means, jackknife
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.questions import Question
from train.evaluation.settings import JudgeSettings
from train.openai_client import open_client, reason

NAME = "judge"
SETTINGS = ("judge", "draft_length", "max_tokens")
"""What the study depends on."""

GRADE = """Grade the answer to the request below: how correct, fluent and complete it is, from 1 to 10. Explain in one \
sentence, then end with the grade in double brackets, as in [[5]].

[Request]
{prompt}

[Answer]
{first}"""
CHOOSE = """Which of two answers to the request below is better? Their order means nothing. Explain in one sentence, \
then end with [[A]], [[B]], or [[C]] if neither is.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}"""
VERDICT = {"grade": re.compile(r"\[\[(10|[1-9])\]\]"), "choose": re.compile(r"\[\[([ABC])\]\]")}
CHARACTERS_PER_TOKEN = 3
"""For the estimate; fewer than of English alone."""


class JudgeError(RuntimeError):
    """The judge's server fails for good; what was judged by then is kept."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be judged."""

    language: str
    question: str
    kind: Literal["grade", "choose"]
    subject: str
    """Of a grade the method; of a choice the order, ``plain first`` or ``drafted first``."""
    message: str

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.language, self.question, self.subject)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    key: tuple[str, str, str]
    verdict: str | None
    """A grade, or A, B, C; None if no answer held one."""
    answer: str
    """The judge's last, or why there is none."""


class LanguageVerdict(msgspec.Struct, frozen=True, kw_only=True):
    graded: int
    """Questions of which both texts have a grade."""
    plain_grade: float | None
    drafted_grade: float | None
    difference: Interval | None
    """Mean grade with drafts less that without."""
    wins: int
    """Questions where the drafted text was chosen in both orders."""
    losses: int
    ties: int
    """Also where the orders disagree: then it was the place that decided."""
    without_verdict: int
    """Answers that held none, after all attempts."""


class JudgeReport(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    languages: dict[str, LanguageVerdict]


def run(lab: Lab) -> Iterator[str]:
    """Ask what was not asked yet; yields what it is at. Raises JudgeError, or SettingsError for a missing key."""
    settings = lab.settings.judge
    if settings is None:
        return
    stage = lab.stage(NAME, **inputs_of(lab.settings, *SETTINGS))
    if stage.done:
        return
    yield "writing the texts to be judged"
    cases = [case for language in lab.languages for case in _cases(lab, language, settings)]
    book = Judgements(stage.folder / "judgements.jsonl")
    todo = [case for case in cases if case.key not in book]
    yield _estimate(todo, settings)
    asyncio.run(_ask_all(todo, settings, book))
    languages = {
        language: _verdict([book[case.key] for case in cases if case.language == language])
        for language in lab.languages
    }
    stage.finish(**msgspec.to_builtins(JudgeReport(model=settings.endpoint.model, languages=languages)))


class Judgements:
    """A file of judgements, a JSON line each, kept as they come. A line that was cut off by a crash is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        self._found = {one.key: one for one in map(msgspec.json.Decoder(Judgement).decode, lines)}
        path.write_bytes(b"".join(line + b"\n" for line in lines))

    def __contains__(self, key: tuple[str, str, str]) -> bool:
        return key in self._found

    def __getitem__(self, key: tuple[str, str, str]) -> Judgement:
        return self._found[key]

    def add(self, judgement: Judgement) -> None:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(judgement) + b"\n")
        self._found[judgement.key] = judgement


def _cases(lab: Lab, language: str, settings: JudgeSettings) -> Iterator[Case]:
    questions = lab.own_set(language, settings.questions).questions
    count, methods = len(questions), lab.pair(language)
    plain, drafted = (
        [lab.tokenizer.decode(text.output, skip_special_tokens=True).strip() for text in found]
        for found in (
            # Other seeds: with the same ones the texts are the same.
            lab.decode(method, questions, settings.temperature, range(first, first + count))
            for first, method in zip((0, count), methods.values(), strict=True)
        )
    )
    for question, one, other in zip(questions, plain, drafted, strict=True):
        yield _case(language, question, "grade", "plain", one)
        yield _case(language, question, "grade", "drafted", other)
        yield _case(language, question, "choose", "plain first", one, other)
        yield _case(language, question, "choose", "drafted first", other, one)


def _case(
    language: str, question: Question, kind: Literal["grade", "choose"], subject: str, first: str, second: str = ""
) -> Case:
    template = GRADE if kind == "grade" else CHOOSE
    message = template.format(prompt=question.prompt.strip(), first=first, second=second)
    return Case(language=language, question=question.id, kind=kind, subject=subject, message=message)


def _estimate(cases: Iterable[Case], settings: JudgeSettings) -> str:
    sizes = [len(case.message) // CHARACTERS_PER_TOKEN + 60 for case in cases]
    price = settings.usd_per_million_tokens
    cost = "" if price is None else f", {sum(sizes) * price / 1e6:.2f} USD"
    return f"asking {settings.endpoint.model} {len(sizes)} times, about {sum(sizes):,} tokens{cost}"


async def _ask_all(cases: Iterable[Case], settings: JudgeSettings, book: Judgements) -> None:
    """After a failure nothing more is asked, but what was is waited for and kept: it may have cost something.

    Raises JudgeError.
    """
    left, failures = iter(cases), list[JudgeError]()
    async with open_client(settings.endpoint) as client:

        async def ask_in_turn() -> None:
            for case in left:
                try:
                    book.add(await _ask(client, case, settings))
                except JudgeError as error:
                    failures.append(error)
                if failures:
                    return

        await asyncio.gather(*(ask_in_turn() for _ in range(settings.concurrency)))
    if failures:
        raise failures[0]


async def _ask(client: openai.AsyncOpenAI, case: Case, settings: JudgeSettings) -> Judgement:
    """Raises JudgeError."""
    answer = ""
    for attempt in range(settings.attempts):
        try:
            completion = await client.chat.completions.create(
                model=settings.endpoint.model,
                messages=[{"role": "user", "content": case.message}],
                # An answer without a verdict would only be repeated at temperature 0.
                temperature=0.0 if attempt == 0 else 0.7,
                seed=attempt,
                max_tokens=200,
            )
        except openai.APIError as error:
            raise JudgeError(f"{settings.endpoint.base_url}: {reason(error)}; what was judged is kept") from error
        answer = completion.choices[0].message.content or ""
        found = VERDICT[case.kind].findall(answer)
        if found:
            return Judgement(key=case.key, verdict=found[-1], answer=answer)
    return Judgement(key=case.key, verdict=None, answer=answer)


def _verdict(found: list[Judgement]) -> LanguageVerdict:
    by_question: dict[str, dict[str, str | None]] = {}
    for one in found:
        by_question.setdefault(one.key[1], {})[one.key[2]] = one.verdict
    grades = [(float(q["plain"]), float(q["drafted"])) for q in by_question.values() if q["plain"] and q["drafted"]]
    outcomes = [_outcome(q["plain first"], q["drafted first"]) for q in by_question.values()]
    return LanguageVerdict(
        graded=len(grades),
        plain_grade=sum(a for a, _ in grades) / len(grades) if grades else None,
        drafted_grade=sum(b for _, b in grades) / len(grades) if grades else None,
        difference=jackknife([(b, a, 1.0) for a, b in grades], difference_of_means) if grades else None,
        wins=outcomes.count("win"),
        losses=outcomes.count("loss"),
        ties=outcomes.count("tie"),
        without_verdict=sum(one.verdict is None for one in found),
    )


def _outcome(plain_first: str | None, drafted_first: str | None) -> str | None:
    """For the drafted text; None if a verdict is missing."""
    if plain_first is None or drafted_first is None:
        return None
    return {("B", "A"): "win", ("A", "B"): "loss"}.get((plain_first, drafted_first), "tie")
