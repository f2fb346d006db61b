"""Whether speculation changes what is written: texts at temperature 0, the law at temperature 1, and BLEU and chrF.

The law is compared by what the target itself thinks of texts, their log-probabilities, and by their lengths: two
samples with other seeds, one written plainly and one with drafts. A drafter that biased the output would shift them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from scipy.stats import permutation_test

from common.engine.decoding import Generation
from common.types import TokenIds
from train.evaluation.equality import Equality, compare
from train.evaluation.intervals import Floats
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.methods import PLAIN, SPECIALIST
from train.evaluation.questions import Question

NAME = "quality"
SETTINGS = ("questions", "draft_length", "max_tokens", "concurrency", "law_texts")
"""What the study depends on."""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Of greedy translations."""

    bleu: float
    chrf: float


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """Two samples at temperature 1."""

    texts: int
    """In each."""
    p_log_probability: float
    """How often chance alone would make the means of the texts' log-probabilities differ so much."""
    p_length: float
    """The same of their lengths."""


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """By language."""

    equality: dict[str, Equality]
    scores: dict[str, dict[str, Scores]]
    """With and without drafts; none where a set has no references."""
    missing_references: dict[str, int]
    law: dict[str, Law]


def run(lab: Lab) -> Iterator[str]:
    """Measure; yields what it is at."""
    settings = lab.settings
    stage = lab.stage(NAME, **inputs_of(settings, *SETTINGS))
    if stage.done:
        return
    report = QualityReport(equality={}, scores={}, missing_references={}, law={})
    for language in lab.languages:
        yield f"{language}: greedy texts"
        questions = lab.own_set(language, settings.questions).questions
        texts = {name: lab.decode(method, questions) for name, method in lab.pair(language).items()}
        _compare_greedy(lab, language, questions, texts, report)
        yield f"{language}: the law at temperature 1"
        report.law[language] = _law(lab, language, questions)
    stage.finish(**msgspec.to_builtins(report))


def _compare_greedy(
    lab: Lab, language: str, questions: list[Question], texts: dict[str, list[Generation]], report: QualityReport
) -> None:
    prompts = lab.prompts(questions)
    outputs = {name: [text.output for text in found] for name, found in texts.items()}
    triples = zip(prompts, outputs[PLAIN], outputs.get(SPECIALIST, outputs[PLAIN]), strict=True)
    report.equality[language] = compare(lab.reference, triples)
    known = [number for number, question in enumerate(questions) if question.reference is not None]
    report.missing_references[language] = len(questions) - len(known)
    references = [str(questions[number].reference) for number in known]
    if known:
        report.scores[language] = {
            name: _scores(lab, [found[number] for number in known], references) for name, found in outputs.items()
        }


def _scores(lab: Lab, outputs: Sequence[TokenIds], references: list[str]) -> Scores:
    texts = [lab.tokenizer.decode(output, skip_special_tokens=True).strip() for output in outputs]
    bleu, chrf = BLEU().corpus_score(texts, [references]), CHRF().corpus_score(texts, [references])
    return Scores(bleu=round(bleu.score, 2), chrf=round(chrf.score, 2))


def _law(lab: Lab, language: str, questions: list[Question]) -> Law:
    """As many texts each way, of the same questions in turns; no seed is used twice."""
    count, pair = lab.settings.law_texts, lab.pair(language)
    asked = [questions[number % len(questions)] for number in range(count)]
    samples = [
        _facts(lab, asked, lab.decode(method, asked, 1.0, range(first, first + count)))
        for method, first in zip((pair[PLAIN], pair.get(SPECIALIST, pair[PLAIN])), (0, count), strict=True)
    ]
    (likely, lengths), (likely_drafted, lengths_drafted) = samples
    return Law(
        texts=count,
        p_log_probability=p_value(likely, likely_drafted),
        p_length=p_value(lengths, lengths_drafted),
    )


def p_value(ones: Floats, others: Floats, *, permutations: int = 9999) -> float:
    """Two-sided, of pairs' mean difference, by swapping pairs at random (Fisher 1935): under the same law it is uniform
    on (0, 1]. A pair's two figures are of the same question, so what questions differ in does not blur it."""
    found = permutation_test(
        (ones, others),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=permutations,
        rng=0,
    )
    return float(found.pvalue)


@torch.inference_mode()
def _facts(lab: Lab, questions: list[Question], texts: list[Generation]) -> tuple[Floats, Floats]:
    """Log-probability and length of each text."""
    likely = []
    for prompt, text in zip(lab.prompts(questions), texts, strict=True):
        tokens = torch.tensor([[*prompt, *text.output]], device=lab.reference.device)
        laws = lab.reference(input_ids=tokens, use_cache=False).logits[0].float().log_softmax(-1)
        written = tokens[0, len(prompt) :]
        likely.append(float(laws[len(prompt) - 1 : -1].gather(1, written[:, None]).sum()))
    return np.array(likely), np.array([len(text.output) for text in texts], np.float64)
