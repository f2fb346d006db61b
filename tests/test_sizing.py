"""How many replicas a traffic needs: by the controller's formulas, more for more, and none for drafts that fail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.capacity.command import plan
from cluster.capacity.costs import Coordination, Costs, DrafterCosts, Leg, StepCosts
from cluster.capacity.load import Fleet, Workload
from cluster.capacity.meeting import meeting
from cluster.capacity.rounds import Group, Verifier
from cluster.capacity.sizing import Sizing, size
from cluster.capacity.traffic import LanguageTraffic, Prices, Traffic
from common.settings import SettingsError
from serve.drafting.settings import SpeculationSettings
from serve.settings import ReplicaSettings, ServeSettings

REPLACE = msgspec.structs.replace
NOTHING = Coordination(verify=Leg(base_ms=0.0), draft=Leg(base_ms=0.0))
STEPS = StepCosts(steps_ms=((1, 25.0), (101, 30.0)))
DRAFTER = DrafterCosts(steps_ms=((1, 1.5), (64, 2.0)), acceptance=(0.8,))
COSTS = Costs(verifier=STEPS, drafters={"de": DRAFTER, "fr": DRAFTER}, coordination=NOTHING)
SERVE = ServeSettings(
    verifier=ReplicaSettings(kv_tokens=64_000, max_sessions=64),
    drafter=ReplicaSettings(kv_tokens=64_000, max_sessions=64),
)
ASKED = LanguageTraffic(requests_per_s=10.0, prompt_tokens=100.0, output_tokens=200.0)
TRAFFIC = Traffic(languages={"de": ASKED, "fr": REPLACE(ASKED, requests_per_s=4.0), "ja": ASKED})


def times(traffic: Traffic, factor: float) -> Traffic:
    """So many times as many requests."""
    more = {
        language: REPLACE(asked, requests_per_s=factor * asked.requests_per_s)
        for language, asked in traffic.languages.items()
    }
    return REPLACE(traffic, languages=more)


def one_text(
    acceptance: float, *, draft_ms: float = 1.5, texts: float = 1.0, **speculation: float
) -> tuple[int, float]:
    """Drafted and seconds of a round, of texts with short prompts at one verifier."""
    drafter = DrafterCosts(steps_ms=((1, draft_ms),), acceptance=(acceptance,))
    group = Group(texts=texts, prompt_tokens=1.0, output_tokens=1e9, drafter=drafter)
    verifier = Verifier(
        steps=StepCosts(steps_ms=((1, 25.0),)), coordination=NOTHING, speculation=SpeculationSettings(**speculation)
    )
    [rounds] = verifier.rounds({"de": group}).values()
    return rounds.drafted, rounds.seconds


def test_steps_between_and_beyond_what_was_measured() -> None:
    assert STEPS.seconds(0.5) == STEPS.seconds(1) == pytest.approx(0.025)
    assert STEPS.seconds(51) == pytest.approx(0.0275)
    assert STEPS.seconds(201) == pytest.approx(0.035)
    assert StepCosts(steps_ms=((1, 5.0), (2, 4.0))).seconds(9) == pytest.approx(0.004), "no step gets ever cheaper"


def test_one_text_is_drafted_for_as_the_controller_does() -> None:
    assert one_text(0.8) == (7, pytest.approx(25e-3 + 7 * 1.5e-3))
    assert one_text(0.0) == (0, pytest.approx(25e-3))
    assert one_text(0.8, min_gain=1.0)[0] == 7, "it gains more than that"
    assert one_text(0.3, min_gain=1.0)[0] == 0
    assert one_text(0.8, draft_length=2)[0] == 2


def test_of_several_texts_at_a_drafter_the_last_miss_its_first_step() -> None:
    assert one_text(0.8, draft_length=2)[1] == pytest.approx(25e-3 + 2 * 1.5e-3)
    assert one_text(0.8, draft_length=2, texts=2.0)[1] == pytest.approx(25e-3 + 3 * 1.5e-3)
    assert one_text(0.8, draft_length=2, texts=9.0)[1] == pytest.approx(25e-3 + 3 * 1.5e-3)


def test_texts_that_are_answered_together_wait_for_the_slowest_draft() -> None:
    seconds, step_s = meeting([0.002, 0.010], [4.0, 4.0], [4.0, 4.0], StepCosts(steps_ms=((1, 20.0),)))
    assert step_s == pytest.approx(0.020)
    assert seconds == pytest.approx([0.030, 0.030])


def test_few_that_take_long_are_not_waited_for_and_are_in_every_second_step() -> None:
    seconds, _ = meeting([0.001, 0.015], [15.0, 1.0], [15.0, 1.0], StepCosts(steps_ms=((1, 20.0),)))
    assert seconds == pytest.approx([0.021, 0.042])


def test_nobody_is_waited_for_who_is_away_longer_than_a_step_takes() -> None:
    seconds, step_s = meeting([0.030], [8.0], [8.0], StepCosts(steps_ms=((1, 10.0),)))
    assert step_s == pytest.approx(0.010)
    assert 0.040 < seconds[0] < 0.045 + 1e-9


def test_a_plain_traffic_by_hand() -> None:
    """48 texts of 200 tokens each, in steps of 30 ms, are 8 a second."""
    traffic = Traffic(languages={"de": REPLACE(ASKED, requests_per_s=8.0)}, utilisation=0.75)
    costs = Costs(verifier=StepCosts(steps_ms=((1, 30.0),)), coordination=NOTHING)
    sized = size(traffic, costs, SERVE)
    assert sized.replicas == Fleet(verifiers=1, drafters={})
    assert Workload(traffic, costs, SERVE).full(sized.replicas).requests_per_s == pytest.approx(48 / (200 * 0.030))
    assert sized.utilisation == pytest.approx(0.75, rel=0.01)
    assert size(times(traffic, 1.01), costs, SERVE).replicas.verifiers == 2


def test_memory_bounds_the_texts_of_a_verifier() -> None:
    narrow = REPLACE(SERVE, verifier=REPLACE(SERVE.verifier, kv_tokens=3_000))
    workload = Workload(TRAFFIC, COSTS.plain(), narrow)
    assert workload.full(Fleet(verifiers=1, drafters={})).total == pytest.approx(0.8 * 3_000 / 300)


def test_drafters_save_verifiers_and_hold_all_texts() -> None:
    sized, plain = (size(times(TRAFFIC, 8.0), costs, SERVE) for costs in (COSTS, COSTS.plain()))
    assert sized.replicas.verifiers < plain.replicas.verifiers
    assert set(sized.replicas.drafters) == {"de", "fr"}
    for language, number in sized.replicas.drafters.items():
        held = sized.replicas.verifiers * sized.load.texts[language] / number
        assert held <= TRAFFIC.utilisation * 64 + 1e-6


def test_a_slow_drafter_gets_replicas_where_they_cost_less_than_verifiers() -> None:
    slow = DrafterCosts(steps_ms=((1, 1.0), (64, 30.0)), acceptance=(0.9,))
    traffic = Traffic(languages={"de": REPLACE(ASKED, requests_per_s=60.0)})
    costs = Costs(verifier=STEPS, drafters={"de": slow}, coordination=NOTHING)
    dear, cheap = (size(REPLACE(traffic, prices=Prices(drafter=price)), costs, SERVE) for price in (3.0, 0.01))
    assert cheap.replicas.verifiers < dear.replicas.verifiers
    assert cheap.replicas.drafters["de"] > dear.replicas.drafters["de"]
    assert all(sized.load.rounds["de"].drafted for sized in (dear, cheap)), "or they would be paid for nothing"


def test_two_halves_of_a_traffic_cost_about_what_the_whole_does() -> None:
    """All wait for the slower of two equally slow drafters, so that one more of either alone carries nothing more."""
    slow = DrafterCosts(steps_ms=((1, 1.0), (64, 30.0)), acceptance=(0.9,))
    costs = Costs(verifier=STEPS, drafters={"de": slow, "fr": slow}, coordination=NOTHING)
    whole = Traffic(languages={"de": REPLACE(ASKED, requests_per_s=60.0)}, prices=Prices(drafter=0.01))
    halves = REPLACE(whole, languages=dict.fromkeys(("de", "fr"), REPLACE(ASKED, requests_per_s=30.0)))
    one, two = (size(traffic, costs, SERVE) for traffic in (whole, halves))
    assert two.replicas.verifiers == one.replicas.verifiers
    assert two.cost_per_hour == pytest.approx(one.cost_per_hour, rel=0.05)
    assert two.replicas.drafters["de"] == pytest.approx(two.replicas.drafters["fr"], abs=1)


rates = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4)
costs_of_anything = st.builds(
    lambda base, token, draft, draft_token, de, fr: Costs(
        verifier=StepCosts(steps_ms=((1, base), (101, base + 100 * token))),
        drafters={
            language: DrafterCosts(steps_ms=((1, draft), (101, draft + 100 * draft_token)), acceptance=tuple(own))
            for language, own in (("de", de), ("fr", fr))
        },
    ),
    st.floats(1.0, 60.0),
    st.floats(0.0, 1.0),
    st.floats(0.1, 10.0),
    st.floats(0.0, 0.5),
    rates,
    rates,
)
amounts = st.floats(0.01, 200.0)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(costs_of_anything, amounts, st.floats(1.0, 5.0))
def test_more_traffic_never_costs_less(costs: Costs, amount: float, factor: float) -> None:
    traffic = times(TRAFFIC, amount / 24.0)
    less, more = size(traffic, costs, SERVE), size(times(traffic, factor), costs, SERVE)
    assert more.cost_per_hour >= less.cost_per_hour
    without, more_without = (size(one, costs.plain(), SERVE) for one in (traffic, times(traffic, factor)))
    assert more_without.replicas.verifiers >= without.replicas.verifiers


@settings(deadline=None, max_examples=40, derandomize=True)
@given(costs_of_anything, amounts, st.floats(0.1, 1.0))
def test_all_requests_are_carried_within_the_utilisation(costs: Costs, amount: float, utilisation: float) -> None:
    traffic = REPLACE(times(TRAFFIC, amount / 24.0), utilisation=utilisation)
    sized = size(traffic, costs, SERVE)
    assert sized.utilisation <= utilisation * (1.0 + 1e-6)
    assert carried(sized) >= amount * (1.0 - 1e-6)
    assert sized.load.total <= utilisation * 64 * (1.0 + 1e-6)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(costs_of_anything, amounts)
def test_nothing_is_drafted_that_is_never_accepted(costs: Costs, amount: float) -> None:
    useless = {name: REPLACE(drafter, acceptance=(0.0,)) for name, drafter in costs.drafters.items()}
    sized = size(times(TRAFFIC, amount / 24.0), REPLACE(costs, drafters=useless), SERVE)
    assert sized.replicas.drafters == {}
    assert all(rounds.drafted == 0 for rounds in sized.load.rounds.values())
    assert sized.cost_per_hour == size(times(TRAFFIC, amount / 24.0), costs.plain(), SERVE).cost_per_hour


def carried(sized: Sizing) -> float:
    return sized.replicas.verifiers * sized.load.requests_per_s


def write(folder: Path, traffic: str, costs: str = "") -> list[str]:
    (folder / "traffic.yaml").write_text(traffic, encoding="utf8")
    (folder / "costs.yaml").write_text(costs, encoding="utf8")
    return ["--config", "laptop", "--traffic", str(folder / "traffic.yaml"), "--costs", str(folder / "costs.yaml")]


ONE = "languages:\n  de: {requests_per_s: 5, prompt_tokens: 100, output_tokens: 200}\n"
MEASURED = (
    "verifier: {steps_ms: [[1, 25], [64, 27]]}\ndrafters:\n  de: {steps_ms: [[1, 1.5]], acceptance: [0.8, 0.7]}\n"
)


def test_the_command_answers_with_a_table_and_a_last_line_of_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(plan, write(tmp_path, ONE, MEASURED), catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["with"]["drafters"]["de"] >= 1
    assert told["without"]["drafters"] == {}
    assert told["with"]["languages"]["de"]["ms_per_token"] < told["without"]["languages"]["de"]["ms_per_token"]
    assert "without speculation: " in result.stderr
    assert told["provenance"]


@pytest.mark.parametrize(
    ("traffic", "costs", "named"),
    [
        ("languages: {}\n", MEASURED, "traffic.yaml:1: languages must name some"),
        (ONE.replace("200", "many"), MEASURED, "traffic.yaml:2: setting `languages.de.output_tokens`: Expected"),
        (ONE.replace("200", "-1"), MEASURED, "traffic.yaml:2: setting `languages.de`: output_tokens must"),
        (ONE.replace("de", "xx"), MEASURED, "traffic.yaml:1: unknown language `xx`"),
        (ONE + "utilisation: 2\n", MEASURED, "traffic.yaml:3: utilisation must"),
        (ONE + "prices: {verifer: 1}\n", MEASURED, "traffic.yaml:3: unknown setting `prices.verifer`"),
        (ONE, MEASURED.replace("[0.8", "[8"), "costs.yaml:3: setting `drafters.de`: acceptance must"),
        (ONE, MEASURED.replace("[64, 27]", "[1, 27]"), "costs.yaml:1: setting `verifier`: steps_ms must"),
        (ONE, "drafters: {}\n", "costs.yaml:1: missing setting `verifier`"),
        (
            ONE.replace("200", "2000000"),
            MEASURED,
            "languages.de: a text has 2.0001e+06 tokens, serve.verifier.kv_tokens holds",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, traffic: str, costs: str, named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        CliRunner().invoke(plan, write(tmp_path, traffic, costs), catch_exceptions=False)
    [told] = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert told.startswith(named)


def test_the_documentation_shows_what_works(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "capacity.md").read_text(encoding="utf8")
    traffic, costs = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    result = CliRunner().invoke(plan, write(tmp_path, traffic, costs), catch_exceptions=False)
    told = json.loads(result.stdout.splitlines()[-1])
    assert set(told["with"]["languages"]) == {"de", "fr", "ja"}


def test_costs_that_were_never_measured_are_asked_for(tmp_path: Path) -> None:
    options = write(tmp_path, ONE)
    (tmp_path / "costs.yaml").unlink()
    with pytest.raises(SettingsError, match=r"costs\.yaml: nothing has been measured; --measure does it"):
        CliRunner().invoke(plan, options, catch_exceptions=False)


def test_costs_of_another_temperature_are_not_used(tmp_path: Path) -> None:
    options = write(tmp_path, ONE, MEASURED + "temperature: 1\n")
    with pytest.raises(SettingsError, match=r"temperature is 0, but .*costs\.yaml was measured at 1"):
        CliRunner().invoke(plan, options, catch_exceptions=False)
