"""The controller in a simulated world: how close to the best fixed length, how soon, how steadily."""

from __future__ import annotations

from statistics import median

import msgspec
import pytest
from draft_length_simulation import MAX_LENGTH, Run, Simulation, World, fixed
from hypothesis import given, settings
from hypothesis import strategies as st

from common.types import StepCost
from serve.drafting.draft_length import DraftLengthController, TextDraftLength
from serve.drafting.drafter_costs import KNOWN_AFTER
from serve.drafting.exploration import Exploration
from serve.drafting.round import Round
from serve.drafting.settings import SpeculationSettings

NEVER = World(acceptance=0.0)
STEP = StepCost(0.02, 5)
SEEDS = range(3)
LEGS_ALONE = SpeculationSettings(doubt=0.0)
"""For runs too short to spend any of it on the A/B test."""


def efficiency(world: World, run: Run) -> float:
    """Throughput of the lengths that one text chose, by the stated numbers, over that of the best fixed length."""
    seconds = sum(world.expected_tokens(n) / world.throughput(n) for n in run.lengths)
    return run.tokens / seconds / world.throughput(world.best)


def outcome(
    drafted: int,
    accepted: int,
    *,
    step: StepCost = STEP,
    draft_s: float = 0.004,
    waited_s: float = 0.0,
    promise: float | None = None,
) -> Round:
    return Round(
        drafted=drafted,
        accepted=accepted,
        draft_cost=StepCost(draft_s, drafted),
        draft_wall_s=waited_s + draft_s,
        verify_cost=step,
        verify_wall_s=step.seconds,
        seconds=waited_s + draft_s + step.seconds,
        promise=promise,
    )


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    base_ms=st.floats(1.0, 50.0),
    token_ms=st.floats(0.0, 3.0),
    draft_ms=st.floats(0.1, 5.0),
    acceptance=st.floats(0.0, 1.0),
)
def test_the_lengths_chosen_come_near_the_best_fixed_one(
    base_ms: float, token_ms: float, draft_ms: float, acceptance: float
) -> None:
    world = World(
        step_s=lambda tokens: (base_ms + token_ms * tokens) * 1e-3, draft_s=draft_ms * 1e-3, acceptance=acceptance
    )
    simulation = Simulation(world, LEGS_ALONE)
    simulation.run(150)
    assert efficiency(world, simulation.run(300)) >= 0.9


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_one_stream_of_a_7b_model_learns_and_explores_for_less_than_four_percent(noise: float, seed: int) -> None:
    world = World(noise=noise)
    assert efficiency(world, Simulation(world, seed=seed).run(1000)) >= 0.96


@pytest.mark.parametrize("seed", SEEDS)
def test_drafts_that_are_never_accepted_cost_less_than_three_percent(seed: int) -> None:
    assert efficiency(NEVER, Simulation(NEVER, seed=seed).run(1000)) >= 0.97


@pytest.mark.parametrize("seed", SEEDS)
def test_a_text_that_is_never_hit_switches_off_though_its_drafter_is_good_elsewhere(seed: int) -> None:
    simulation = Simulation(World(), seed=seed)
    simulation.run(300)
    simulation.change(acceptance=0.0)
    simulation.begin(1)
    assert simulation.run(400).mean_length(last=300) < 0.3
    simulation.change(acceptance=0.8)
    simulation.begin(1)
    assert simulation.run(30).mean_length(last=20) >= 3


@pytest.mark.parametrize(("settings", "within"), [(LEGS_ALONE, 60), (SpeculationSettings(), 250)])
@pytest.mark.parametrize("seed", range(6))
def test_drafting_is_back_when_acceptance_recovers(settings: SpeculationSettings, within: int, seed: int) -> None:
    assert _recovered(settings, within, seed) >= 5


def test_drafting_is_mostly_back_within_150_rounds_though_a_trial_may_hold_it_back() -> None:
    lengths = sorted(_recovered(SpeculationSettings(), 150, seed) for seed in range(15))
    assert median(lengths) >= 5
    assert lengths[1] >= 2, "but for one, all draft again"


def _recovered(settings: SpeculationSettings, within: int, seed: int) -> float:
    """Mean length of the hundred drafts that follow `within` rounds after acceptance has become good."""
    simulation = Simulation(NEVER, settings, seed=seed)
    assert simulation.run(500).mean_length(last=300) < 0.2
    simulation.change(acceptance=0.8)
    simulation.run(within)
    return simulation.run(100).mean_length(last=100)


@pytest.mark.parametrize("acceptance", [0.0, 0.3])
def test_a_loaded_verifier_whose_steps_cost_by_the_token_decodes_plainly(acceptance: float) -> None:
    world = World(step_s=lambda tokens: 0.01 + 0.001 * tokens, acceptance=acceptance)
    simulation = Simulation(world, texts=32)
    simulation.run(20)
    run = simulation.run(50)
    assert run.mean_length(last=1600) < 0.15
    assert run.tokens_per_s >= 0.96 * fixed(world, 0, texts=32)


@pytest.mark.parametrize("acceptance", [0.3, 0.8])
@pytest.mark.parametrize("step_s", [lambda t: 25e-3, lambda t: 0.02 + 0.0008 * t], ids=["flat", "linear"])
def test_a_loaded_verifier_comes_near_the_best_fixed_length(acceptance: float, step_s) -> None:  # type: ignore[no-untyped-def]
    world = World(step_s=step_s, acceptance=acceptance)
    simulation = Simulation(world, LEGS_ALONE, texts=16)
    simulation.run(30)
    best = max(fixed(world, n, texts=16) for n in range(MAX_LENGTH + 1))
    assert simulation.run(100).tokens_per_s >= 0.93 * best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("doubt", [0.0, 0.2])
def test_lengths_follow_the_load_within_twenty_rounds(doubt: float, seed: int) -> None:
    simulation = Simulation(
        World(step_s=lambda tokens: 0.02 + 0.0008 * tokens), SpeculationSettings(doubt=doubt), seed=seed
    )
    for texts, shortest, longest in [(1, 4, 8), (32, 0, 3.2), (1, 4, 8), (32, 0, 3.2), (1, 4, 8)]:
        simulation.begin(texts)
        simulation.run(20)
        assert shortest <= simulation.run(50).mean_length(last=50 * texts) <= longest


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_does_not_make_lengths_flap(seed: int) -> None:
    simulation = Simulation(World(noise=0.1), SpeculationSettings(exploration=0.0), seed=seed)
    simulation.run(100)
    assert simulation.run(900).changes <= 9


@pytest.mark.parametrize(("hysteresis", "moves"), [(0.0, True), (0.2, False)])
def test_a_length_is_kept_unless_another_is_better_by_the_hysteresis(hysteresis: float, moves: bool) -> None:
    """At acceptance 0.6 four tokens are 7 % better than the seven that are best at 0.8."""
    simulation = Simulation(World(), SpeculationSettings(exploration=0.0, hysteresis=hysteresis))
    settled = simulation.run(300).lengths[-1]
    simulation.change(acceptance=0.6)
    assert (simulation.run(300).lengths[-1] < settled) is moves


@pytest.mark.parametrize("seed", SEEDS)
def test_plain_decoding_that_has_become_cheap_is_noticed(seed: int) -> None:
    simulation = Simulation(World(), seed=seed)
    assert simulation.run(400).mean_length(last=100) >= 5
    simulation.change(step_s=lambda tokens: 6e-3 if tokens == 1 else 25e-3)
    simulation.run(300)
    assert simulation.run(100).mean_length(last=100) < 1


@pytest.mark.parametrize("value", [0.9, 0.6, 0.3])
def test_exploring_takes_its_share_of_the_time_and_less_of_what_is_worse(value: float) -> None:
    """Plain decoding is so many times as fast as three tokens, the longest draft."""
    exploration, rounds = Exploration(share=0.005), 20_000
    plain = sum(exploration.vary(3, [value, 0.7, 0.8, 1.0], [1.0] * 4, 1) == 0 for _ in range(rounds))
    assert plain * (1.0 - value) / rounds == pytest.approx(0.005 * value, rel=0.3)


def test_unseen_positions_are_explored_one_at_a_time() -> None:
    lengths = Simulation(World(acceptance=1.0), SpeculationSettings(default_draft_length=1)).run(100).lengths
    assert all(n <= 1 + max(lengths[:i], default=0) for i, n in enumerate(lengths))
    assert max(lengths) == MAX_LENGTH


@pytest.mark.parametrize("seed", SEEDS)
def test_hiccups_and_prompts_of_others_do_not_mislead(seed: int) -> None:
    world = World(step_s=lambda tokens: 0.02 + 0.001 * tokens, hiccups=0.005, prompts_per_s=0.5)
    assert efficiency(world, Simulation(world, seed=seed).run(1000)) >= 0.95


@pytest.mark.parametrize(("settings", "least"), [(LEGS_ALONE, 0.96), (SpeculationSettings(), 0.95)])
@pytest.mark.parametrize("acceptance", [0.5, 0.8])
def test_a_second_token_dearer_than_the_next_ones_is_seen(
    acceptance: float, settings: SpeculationSettings, least: float
) -> None:
    """As on a CPU: no straight line through the costs of drafted rounds tells the cost of plain decoding."""
    world = World(step_s=lambda t: 0.010 if t == 1 else 0.014 + 0.002 * t, draft_s=1e-3, acceptance=acceptance)
    assert world.best == (0 if acceptance == 0.5 else 4)
    simulations = [Simulation(world, settings, seed=seed) for seed in range(9)]
    for simulation in simulations:
        simulation.run(200)
    assert median(efficiency(world, simulation.run(600)) for simulation in simulations) >= least


@settings(deadline=None)
@given(limit=st.integers(0, 12), rounds=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
def test_no_choice_is_above_the_limit(limit: int, rounds: list[tuple[int, int]]) -> None:
    text = DraftLengthController(SpeculationSettings()).text()
    for drafted, accepted in rounds:
        length = text.choose("de", 3, limit)
        assert 0 <= max(length.wanted, length.ahead) <= min(limit, MAX_LENGTH)
        text.observe("de", outcome(drafted, min(drafted, accepted)), 1)


def test_a_limit_below_the_best_length_is_drafted_to_only_if_that_pays_too() -> None:
    text = DraftLengthController(SpeculationSettings(exploration=0.0, doubt=0.0)).text()
    for drafted, accepted in [(4, 4), (1, 1), (4, 4), (1, 0), (4, 0), (1, 1), (0, 0)] * 20:
        text.choose("de", 1, 8)
        step = StepCost(0.015 + 0.002 * drafted if drafted else 0.010, 1 + drafted)  # a second token is dear
        text.observe("de", outcome(drafted, accepted, step=step, draft_s=1e-3 * drafted), 1)
    assert [text.choose("de", 1, limit).wanted for limit in range(5)] == [0, 0, 2, 3, 4]


@pytest.mark.parametrize("only_asked_whether_it_pays", [False, True])
def test_a_drafter_that_was_dear_long_ago_is_soon_drawn_on_again(only_asked_whether_it_pays: bool) -> None:
    text = DraftLengthController(SpeculationSettings(exploration=0.0, doubt=0.0)).text()
    plain = outcome(0, 0, step=StepCost(0.02, 1), draft_s=0.0)
    for seen in [outcome(4, 4, draft_s=0.4)] * 60 + [plain] * 9:
        text.choose("de", 1, 8)
        text.observe("de", seen, 1)
    assert not text.pays("de", 1) and not text.choose("de", 1, 8).wanted
    for _ in range(2000):
        if only_asked_whether_it_pays:
            text.pays("de", 1)
        else:
            text.choose("de", 1, 8)
    for _ in range(10):
        text.observe("de", outcome(4, 4), 1)
    assert text.choose("de", 1, 8).wanted >= 4


def test_a_fixed_length_is_kept_whatever_happens() -> None:
    text = DraftLengthController(SpeculationSettings(draft_length=3)).text()
    for _ in range(50):
        assert text.choose("de", 1, 8).wanted == 3 and text.choose("de", 1, 2).wanted == 2
        text.observe("de", outcome(3, 0), 1)


def test_the_next_length_is_reckoned_while_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DraftLengthController(SpeculationSettings(exploration=0.0)).text()
    for _ in range(20):
        drafted = text.choose("de", 1, 4).wanted
        text.observe("de", outcome(drafted, drafted, step=StepCost(0.02, 1 + drafted)), 1)
    with monkeypatch.context() as patched:
        patched.setattr(TextDraftLength, "_reckon", lambda *of: pytest.fail("somebody waits"))
        assert text.choose("de", 1, 4).wanted == 4
        assert text.choose("de", 1, 2).wanted == 2


def reckoned(text: TextDraftLength, patched: pytest.MonkeyPatch) -> list[int]:
    """For how many texts in progress it reckons from now on."""
    loads: list[int] = []
    reckon = TextDraftLength._reckon
    patched.setattr(text, "_reckon", lambda drafter, load: loads.append(load) or reckon(text, drafter, load))
    return loads


def test_a_load_that_is_another_one_is_reckoned_with_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DraftLengthController(SpeculationSettings(exploration=0.0)).text()
    for _ in range(20):
        drafted = text.choose("de", 32, 8).wanted
        text.observe("de", outcome(drafted, drafted), 32)
    text.choose("de", 32, 8)
    loads = reckoned(text, monkeypatch)
    text.choose("de", 34, 8)
    assert not loads, "nearly the same"
    text.choose("de", 64, 8)
    text.choose("de", 1, 8)
    assert loads == [64, 1]
    # What is learned late, from a round under the load before, reckons with the latest.
    text.observe("de", outcome(4, 4), 64)
    text.observe("de", outcome(4, 4), 64)
    assert loads[2:] == [1]


def test_a_drafter_that_was_not_asked_for_long_is_reckoned_with_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DraftLengthController(SpeculationSettings(exploration=0.0)).text()
    for name in ["ngram"] * 20 + ["de"] * 20:
        drafted = text.choose(name, 1, 4).wanted
        text.observe(name, outcome(drafted, drafted), 1)
    loads = reckoned(text, monkeypatch)
    text.choose("de", 1, 4)
    assert not loads
    text.choose("ngram", 1, 4)
    assert loads == [1]


def test_until_costs_are_known_the_default_is_drawn() -> None:
    """The first round of a text waited for its prompt, so it takes one more."""
    text = DraftLengthController(SpeculationSettings(default_draft_length=3)).text()
    for _ in range(1 + KNOWN_AFTER):
        assert text.choose("de", 1, 8).wanted == 3
        text.observe("de", outcome(3, 3), 1)
    assert text.choose("de", 1, 8).wanted != 3


def test_what_waited_for_a_prompt_says_nothing_about_costs() -> None:
    seconds = []
    for first_s in (0.02, 50.0):
        controller = DraftLengthController(SpeculationSettings())
        for _ in range(KNOWN_AFTER):
            text = controller.text()
            text.observe("de", outcome(4, 3, step=StepCost(first_s, 5), draft_s=first_s / 5), 1)
            text.observe("de", outcome(4, 3), 1)
        drafter = controller.drafter("de")
        drafter.look_ahead(1)
        seconds.append(drafter.costs)
    assert seconds[0] == seconds[1]


def test_verifiers_that_report_no_cost_get_the_default() -> None:
    text = DraftLengthController(SpeculationSettings()).text()
    for _ in range(5):
        assert text.choose("de", 1, 8).wanted == 4
        text.observe("de", outcome(4, 4, step=StepCost()), 1)


def test_drafters_are_known_apart() -> None:
    text = DraftLengthController(SpeculationSettings(exploration=0.0)).text()
    for _ in range(40):
        for name, accepted in [("de", 4), ("ngram", 0)]:
            drafted = text.choose(name, 1, 4).wanted
            text.observe(name, outcome(drafted, min(drafted, accepted), step=StepCost(0.02, 1 + drafted)), 1)
    assert text.choose("de", 1, 4).wanted == 4 and text.choose("ngram", 1, 4).wanted == 0


def test_drafts_that_are_too_dear_for_many_texts_are_tried_again_for_one() -> None:
    """On shared cores: of eight texts each waits for the drafts of all."""
    controller = DraftLengthController(SpeculationSettings(doubt=0.0, exploration=0.0))
    texts = [controller.text() for _ in range(8)]
    for _ in range(40):
        for text in texts:
            drafted = text.choose("de", 8, 8).wanted
            step = StepCost(0.02 + 0.002 * 8 * drafted, 8 * (1 + drafted))
            text.observe("de", outcome(drafted, min(1, drafted), step=step, draft_s=0.003, waited_s=0.020), 8)
    assert texts[0].choose("de", 8, 8).wanted == 0
    alone = controller.text()
    for _ in range(40):
        drafted = alone.choose("de", 1, 8).wanted
        alone.observe("de", outcome(drafted, min(1, drafted), step=StepCost(0.02, 1 + drafted), draft_s=0.003), 1)
    assert alone.choose("de", 1, 8).wanted == 1


def test_a_drafter_that_never_answers_in_time_is_no_longer_asked() -> None:
    controller = DraftLengthController(SpeculationSettings(exploration=0.0))
    asked = 0
    for _ in range(20):
        text = controller.text()
        for _ in range(20):
            wanted = text.choose("de", 1, 8).wanted
            asked += wanted > 0
            late_s = 1.0 if wanted else 0.0
            late = Round(
                drafted=0,
                accepted=0,
                draft_wall_s=late_s,
                verify_cost=STEP,
                verify_wall_s=STEP.seconds,
                seconds=late_s + STEP.seconds,
            )
            text.observe("de", late, 1)
    assert asked < 20


def test_a_trial_that_holds_back_what_is_not_known_yet_ends_too() -> None:
    controller = DraftLengthController(SpeculationSettings())
    controller.trial.drafting = False
    text = controller.text()
    plain = Round(drafted=0, accepted=0, verify_cost=STEP, verify_wall_s=STEP.seconds, seconds=STEP.seconds)
    allowed = []
    for _ in range(1000):
        length = text.choose("de", 1, 8)
        assert (length.wanted > 0) is controller.trial.drafting
        text.observe("de", msgspec.structs.replace(plain, promise=length.promise), 1)
        allowed.append(controller.trial.drafting)
    assert all(allowed[500:]), "what is not known yet is to be tried"


class Heard:
    """In place of the trial: what it is told that drafting promises."""

    drafting = True

    def __init__(self) -> None:
        self.promises: list[float] = []

    def observe(self, sessions: int, tokens: int, seconds: float, promise: float) -> None:
        self.promises.append(promise)


def test_a_round_is_told_with_the_promise_of_its_own_drafter() -> None:
    controller = DraftLengthController(SpeculationSettings(exploration=0.0))
    heard = controller.trial = Heard()  # type: ignore[assignment]
    text, drafters = controller.text(), ("de", "de", "ngram") * 40
    for drafter in drafters:
        drafted, _, promise = text.choose(drafter, 4, 8)
        accepted = drafted if drafter == "de" else 0
        text.observe(drafter, outcome(drafted, accepted, step=StepCost(0.02, 1 + drafted), promise=promise), 4)
    for drafter, promise in zip(drafters[-30:], heard.promises[-30:], strict=True):
        assert (promise > 1.5) is (drafter == "de")


@pytest.mark.parametrize("drafting", [True, False])
def test_texts_that_nobody_drafts_for_have_no_part_in_the_trial(drafting: bool) -> None:
    controller = DraftLengthController(SpeculationSettings())
    heard = controller.trial = Heard()  # type: ignore[assignment]
    heard.drafting = drafting
    text = controller.text()
    for _ in range(3):
        text.observe("ngram", Round(drafted=0, accepted=0, verify_cost=STEP, verify_wall_s=0.02, seconds=0.02), 1)
    assert not heard.promises


def test_the_wait_for_a_lease_and_for_the_prompt_hides_no_loss() -> None:
    """Drafting is 0.8 times as fast as it looks, and each text waited for a second before its first round."""
    controller = DraftLengthController(SpeculationSettings(doubt=0.5))
    drafted_rounds = []
    for _ in range(100):
        text = controller.text()
        for number in range(40):
            drafted, _, promise = text.choose("de", 1, 2)
            step = StepCost(0.02, 1 + drafted)
            took = outcome(drafted, min(1, drafted), step=step, draft_s=0.003, promise=promise)
            waited_s = (1.0 if not number else 0.0) + (0.03 if drafted else 0.0)
            text.observe("de", msgspec.structs.replace(took, seconds=took.seconds + waited_s), 1)
            drafted_rounds.append(drafted > 0)
    assert sum(drafted_rounds[-2000:]) < 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_draft_length", 0),
        ("max_draft_length", 65),
        ("default_draft_length", 9),
        ("default_draft_length", 0),
        ("draft_length", -1),
        ("initial_acceptance", 1.5),
        ("exploration", 0.5),
        ("hysteresis", -0.1),
        ("doubt", -0.1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SpeculationSettings(**{field: value})


@pytest.mark.parametrize(("min_gain", "pays"), [(0.0, True), (0.3, False)])
def test_a_gain_below_the_least_one_is_not_taken(min_gain: float, pays: bool) -> None:
    """Drafts of which every second first token is accepted, at a tenth of a verification each, gain some 20 %."""
    settings = SpeculationSettings(min_gain=min_gain, exploration=0.0, max_draft_length=1, default_draft_length=1)
    controller = DraftLengthController(settings)
    text = controller.text()
    for number in range(400):
        drafted = Round(
            drafted=1,
            accepted=number % 4 // 2,
            draft_cost=StepCost(0.001, 1),
            draft_wall_s=0.002,
            verify_cost=StepCost(0.010, 2),
            verify_wall_s=0.011,
            seconds=0.013,
        )
        plain = Round(drafted=0, accepted=0, verify_cost=StepCost(0.010, 1), verify_wall_s=0.011, seconds=0.011)
        text.observe("de", drafted if number % 2 else plain, 1)
    later = [controller.text() for _ in range(200)]
    assert {t.choose("de", 1, 1).wanted for t in later} == {int(pays)}
    at_hand = sum(t.pays("de", 1) for t in later)
    assert at_hand == 200 if pays else 0 < at_hand < 40
