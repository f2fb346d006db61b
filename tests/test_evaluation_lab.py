"""The studies on a run made by hand, their report, and two runs beside each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from lab_run import LANGUAGES, make_lab, make_run, settings

from cluster.config import load_config
from cluster.evaluate_command import STUDIES, evaluate
from common.settings import SettingsError
from train.evaluation.equality import compare
from train.evaluation.intervals import Interval
from train.evaluation.lab import Lab
from train.evaluation.report.claims import verdict
from train.evaluation.report.comparison import compare_runs
from train.evaluation.report.findings import read_findings
from train.evaluation.report.page import write_report
from train.evaluation.studies import domains, http, judge, peers, quality, scaling, speed
from train.evaluation.studies.quality import p_value
from train.evaluation.studies.scaling import Point, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def measured(run: Path) -> Lab:
    lab = make_lab(run, settings())
    for study in (speed, domains, quality, peers):
        assert list(study.run(lab)), study
    return lab


def test_what_is_measured_is_not_measured_again(measured: Lab, run: Path) -> None:
    again = make_lab(run, settings())
    assert all(list(study.run(again)) == [] for study in (speed, domains, quality, peers))
    other = make_lab(run, settings(law_texts=13))
    assert other.stage(speed.NAME, **_inputs(other, speed.SETTINGS)).done
    assert not other.stage("quality-again", **_inputs(other, quality.SETTINGS)).done


def _inputs(lab: Lab, names: tuple[str, ...]) -> dict[str, object]:
    return {name: msgspec.to_builtins(getattr(lab.settings, name)) for name in names}


def test_the_studies_find_what_is_so(measured: Lab) -> None:
    found = read_findings(measured.folder)
    assert found.speed and found.domains and found.quality and found.peers and not found.scaling
    assert all(summary.unequal == 0 for summary in found.speed.summaries)
    lengths = {(s.way.method, s.way.language): s.mean_acceptance_length.value for s in found.speed.compared()}
    assert lengths["P+F", "de"] > lengths["generic", "de"] >= 1.0 == lengths["plain", "de"]
    assert [s.way.draft_length for s in found.speed.swept()] == [1, 2] * 2
    # The same English sentences are in every part.
    assert found.speed.held_out == {"de": False, "fr": False}
    assert {(c.drafter, c.language) for c in found.domains.cells} >= {("de", "fr"), ("generalist", "de")}
    assert found.domains.worst().drafter in LANGUAGES
    assert all(e.equal and e.texts == 4 for e in found.quality.equality.values())
    assert found.quality.scores["de"]["plain"] == found.quality.scores["de"]["P+F"]
    assert all(law.p_log_probability > 0.001 and law.p_length > 0.001 for law in found.quality.law.values())
    assert found.peers.equality.equal and set(found.peers.ratios) == set(peers.PEERS.values())
    assert found.provenance.keys() >= {"speed", "domains", "quality", "peers"}


def test_answers_through_http_are_held_beside_each_other(run: Path) -> None:
    asked: list[tuple[str, object]] = []

    @contextmanager
    def service() -> Iterator[http.Ask]:
        def ask(question: http.Asked, speculation: object) -> http.Answered:
            asked.append((question.prompt, speculation))
            fast = isinstance(speculation, dict)
            return http.Answered(
                text=question.prompt if speculation != "auto" else "other",
                tokens=8,
                rounds=2 if fast else 8,
                first_s=0.25,
                total_s=1.0 if fast else 2.0,
                error="gone" if speculation == "auto" and question.seed == 0 else None,
            )

        yield ask

    lab = make_lab(run, settings())
    assert list(http.run(lab, service()))
    found = read_findings(lab.folder).http
    assert found is not None and len(found.summaries) == len(LANGUAGES) * 2 * 3
    plain, drafted, auto = found.summaries[:3]
    assert (plain.speedup.value, drafted.speedup.value, auto.speedup.value) == (1.0, 2.0, 1.0)
    assert drafted.tokens_per_verification.value == 4.0 and drafted.first_piece_ms == 250.0
    assert (plain.unequal, drafted.unequal, auto.unequal) == (0, 0, 3) and (drafted.failed, auto.failed) == (0, 1)
    # After a warm-up of each way, 4 questions in 3 ways, no way always first.
    firsts = [speculation for _, speculation in asked[3:15:3]]
    assert len({str(first) for first in firsts}) == 3 and {"drafter": "de", "max_draft_length": 2} in firsts


def test_the_report_is_one_page_and_a_folder(measured: Lab, tmp_path: Path) -> None:
    findings = msgspec.structs.replace(read_findings(measured.folder), scaling=LINE)
    names = [path.name for path in write_report(findings, tmp_path)]
    assert names == ["speedup.svg", "positions.svg", "domains.svg", "scaling.svg", "report.md", "report.html"]
    page, text = ((tmp_path / name).read_text(encoding="utf8") for name in ("report.html", "report.md"))
    assert page.count("<svg") == 4 and not re.search(r'(src|href)="(?!#|data:)', page), "nothing is fetched"
    for said in ("Out of domain", "P+F accepts more than the generic drafter", "logarithm", "NOT HELD OUT"):
        assert said in page and said in text
    assert page.count("git_revision") == text.count("git_revision") == len(findings.provenance)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    write_report(findings, tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in names}


def test_a_run_beside_itself_is_the_same(measured: Lab, tmp_path: Path) -> None:
    changes = compare_runs(measured.folder, measured.folder)
    assert {(c.acceptance.value, c.verdict, c.questions) for c in changes} == {(1.0, "not told apart", 4)}
    run = str(measured.folder.parent)
    result = CliRunner().invoke(evaluate, ["compare", run, run])
    assert result.exit_code == 0 and len(json.loads(result.stdout.splitlines()[-1])) == len(changes)
    with pytest.raises(SettingsError, match=r"records.jsonl: no such file; measure first"):
        compare_runs(measured.folder, tmp_path)


def test_a_study_that_does_not_exist_is_refused() -> None:
    result = CliRunner().invoke(evaluate, ["--what", "speed,sped"])
    assert isinstance(result.exception, SettingsError) and "`sped` is not among" in str(result.exception)


def test_a_first_look_trains_nothing() -> None:
    assert load_config("lab").lab.scaling is not None
    result = CliRunner().invoke(evaluate, ["--quick", "--what", "speed,scaling"])
    assert isinstance(result.exception, SettingsError) and "`scaling` is not among" in str(result.exception)


def test_every_study_can_be_named() -> None:
    modules = (speed, http, domains, quality, peers, scaling, judge)
    assert {module.NAME for module in modules} == set(STUDIES) and evaluate.name == "evaluate"


LINE = scaling.ScalingReport(
    language="de",
    points=[Point(kind="P+F", tokens=2**n, seed=0, mean_acceptance_length=1 + n / 4) for n in range(1, 7)],
    slopes={"P+F": Interval(value=0.25, low=0.25, high=0.25)},
    explained={"P+F": 1.0},
)


def test_a_line_over_the_logarithm_is_found() -> None:
    assert fit(LINE.points) == (LINE.slopes["P+F"], 1.0)


def test_noise_is_no_line_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    unclear = 0
    for _ in range(100):
        lengths = generator.normal(2.0, 0.1, 18)
        points = [
            Point(kind="F", tokens=2 ** (n // 3), seed=n % 3, mean_acceptance_length=float(y))
            for n, y in enumerate(lengths)
        ]
        slope, _ = fit(points)
        unclear += slope.low < 0 < slope.high
    assert 85 <= unclear <= 99


def test_a_permutation_test_is_right_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    same = [p_value(*generator.normal(size=(2, 30)), permutations=199) for _ in range(200)]
    assert 2 <= sum(p <= 0.05 for p in same) <= 20
    ones, others = generator.normal(size=(2, 60))
    assert p_value(ones + 1.0, others) < 0.01


def test_texts_may_differ_only_where_rounding_decides() -> None:
    model, prompt = tiny.model(), (3, 4)
    best, second = model(input_ids=torch.tensor([prompt])).logits[0, -1].topk(2).indices.tolist()
    assert compare(model, [(prompt, [best], [best])]).same == 1
    assert compare(model, [(prompt, [best], [second])]).unequal == 1
    assert compare(model, [(prompt, [best, 7], [best])]).unequal == 1
    head = model.get_output_embeddings().weight.data
    head[second] = head[best] * (1 + 1e-9)
    assert compare(model, [(prompt, [best], [second])]).ties == 1


def test_claims_are_worded_by_their_intervals() -> None:
    above, below = Interval(value=1.2, low=1.1, high=1.3), Interval(value=0.8, low=0.7, high=0.9)
    unclear = Interval(value=1.1, low=0.9, high=1.3)
    assert verdict([above, above]) == "Confirmed"
    assert verdict([below, below]) == "Refuted"
    assert verdict([above, below]) == "Refuted for some"
    assert verdict([above, unclear]) == "Not settled for all"
