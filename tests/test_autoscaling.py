"""Autoscaling: the policy as a rule on numbers, through Ray's own types, and under a simulated load."""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Callable
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from ray.serve import autoscaling_policy as rays
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from common.settings import SettingsError, convert
from serve.autoscaling import HEADROOM, AutoscalingSettings, needed_replicas, session_policy

Load = Callable[[float], float]
RAYS_DEFAULT = rays.replica_queue_length_autoscaling_policy

loads = st.floats(0, 10_000, allow_subnormal=False)
targets = st.floats(0.5, 100)
replica_counts = st.integers(0, 200)


@given(loads, loads, targets, replica_counts)
def test_more_sessions_never_need_fewer_replicas(one: float, other: float, target: float, replicas: int) -> None:
    low, high = sorted((one, other))
    assert needed_replicas(low, target, replicas) <= needed_replicas(high, target, replicas)


@given(loads, targets, replica_counts)
def test_a_constant_load_is_answered_once_and_well(load: float, target: float, replicas: int) -> None:
    needed = needed_replicas(load, target, replicas)
    assert needed_replicas(load, target, needed) == needed
    assert needed * target >= load * (1 - 1e-9), "enough"
    assert needed <= max(replicas, math.ceil(load / target)), "no more than asked for"
    if needed < replicas:
        assert needed == math.ceil(load / (target * (1 - HEADROOM)))


@given(st.integers(1, 200), targets, st.floats(-1, 1))
def test_a_load_that_wavers_within_the_headroom_changes_nothing(replicas: int, target: float, phase: float) -> None:
    least_kept = (replicas - 1) * target * (1 - HEADROOM)
    load = least_kept + 1e-6 * target + (replicas * target - least_kept - 2e-6 * target) * (phase + 1) / 2
    assert needed_replicas(load, target, replicas) == replicas


def context(config: AutoscalingConfig, load: float, running: int, wanted: int, state: dict[str, Any], now: float = 0.0):
    return AutoscalingContext(
        deployment_id=DeploymentID("Drafter", "drafter-de"),
        deployment_name="Drafter",
        app_name="drafter-de",
        current_num_replicas=running,
        target_num_replicas=wanted,
        running_replicas=[],
        total_num_requests=lambda: load,
        total_queued_requests=0.0,
        aggregated_metrics=None,
        raw_metrics=None,
        capacity_adjusted_min_replicas=config.min_replicas,
        capacity_adjusted_max_replicas=config.max_replicas,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=config,
    )


@given(loads, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_the_policy_stays_within_its_bounds_and_remembers_plain_values(
    load: float, running: int, wanted: int, one: int, other: int
) -> None:
    low, high = sorted((one, max(other, 1)))
    config = AutoscalingConfig(min_replicas=low, max_replicas=high)
    wanted = min(max(wanted, low), high)
    answer, state = session_policy(context(config, load, running, wanted, {}))
    assert low <= answer <= high
    assert isinstance(answer, int) and all(isinstance(value, int) for value in state.values())


def test_the_policy_reaches_a_controller_that_lacks_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AutoscalingSettings(min_replicas=0, max_replicas=5, target_sessions=2).to_ray()
    monkeypatch.setitem(sys.modules, "serve.autoscaling", None)
    policy = config.policy.get_policy()
    assert policy is not session_policy
    assert policy(context(config, 7.0, 1, 1, {})) == (4, {})


class Simulation:
    """Ray's controller and one deployment, on a clock of its own: reports, averages, delays and start-up."""

    STEP_S, START_S = 0.5, 6.0

    def __init__(self, settings: AutoscalingSettings, policy: Any, clock: SimpleNamespace) -> None:
        self.config = settings.to_ray()
        self.decide = rays._apply_autoscaling_config(policy)
        self.clock = clock
        self.wanted, self.state, self.history = 0, {}, [(clock.now, 0)]  # type: ignore[var-annotated]
        self.ready_at: list[float] = []
        self.reports: deque[float] = deque(maxlen=round(settings.look_back_s / self.STEP_S))

    def run(self, load: Load, seconds: float) -> Simulation:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += self.STEP_S
            self.reports.append(load(self.clock.now))
            running = sum(ready <= self.clock.now for ready in self.ready_at)
            mean = sum(self.reports) / len(self.reports)
            ctx = context(self.config, mean, running, self.wanted, dict(self.state), self.clock.now)
            answer, self.state = self.decide(ctx)
            self._scale(max(self.config.min_replicas, min(self.config.max_replicas, math.ceil(answer))))
        return self

    def _scale(self, wanted: int) -> None:
        if wanted != self.wanted:
            self.wanted = wanted
            self.history.append((self.clock.now, wanted))
            self.ready_at = self.ready_at[:wanted]
            self.ready_at += [self.clock.now + self.START_S] * (wanted - len(self.ready_at))

    def changes(self, since: float = 0.0) -> list[int]:
        return [count for when, count in self.history if when > since]

    def when(self, count: int) -> float:
        return next(when for when, wanted in reversed(self.history) if wanted == count)


SETTINGS = AutoscalingSettings(
    min_replicas=0,
    max_replicas=8,
    target_sessions=8,
    upscale_delay_s=2,
    downscale_delay_s=30,
    downscale_to_zero_delay_s=60,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr(rays, "time", SimpleNamespace(time=lambda: made.now))
    return made


def test_a_step_in_load_is_followed_soon_up_and_slowly_down_to_nothing(clock: SimpleNamespace) -> None:
    simulation = Simulation(SETTINGS, session_policy, clock)
    simulation.run(lambda now: 30.0, 60)
    assert simulation.history[1] == (0.5, 1), "the first replica is started at once"
    assert simulation.wanted == 4
    assert simulation.when(4) <= 0.5 + Simulation.START_S + SETTINGS.upscale_delay_s + SETTINGS.look_back_s
    simulation.run(lambda now: 0.0, 200)
    assert simulation.wanted == 0
    assert simulation.when(0) - 60 >= SETTINGS.downscale_delay_s + SETTINGS.downscale_to_zero_delay_s
    counts = simulation.changes()
    assert counts == [1, 4, *sorted(counts[2:], reverse=True)], "up, then only down"
    assert 1 in counts[2:], "Serve goes to zero from one"


def texts_in_progress(mean: float, lifetime_s: float, seed: int, seconds: int) -> list[int]:
    """Independent arrivals, exponential durations: the number in progress every half second."""
    draw, now = random.Random(seed), 0.0
    changes = [0] * (2 * seconds + 1)
    while (now := now + draw.expovariate(mean / lifetime_s)) < seconds:
        changes[int(2 * now)] += 1
        changes[min(int(2 * (now + draw.expovariate(1 / lifetime_s))), 2 * seconds)] -= 1
    return list(accumulate(changes))


@pytest.mark.parametrize("seed", range(2))
def test_random_arrivals_move_it_less_than_half_as_often_as_rays_default(clock: SimpleNamespace, seed: int) -> None:
    sessions = texts_in_progress(24, 15, seed, 3600)

    def run(policy: Any) -> tuple[int, float]:
        clock.now = 0.0
        simulation = Simulation(replace(SETTINGS, downscale_delay_s=60), policy, clock)
        simulation.run(lambda now: float(sessions[round(now * 2)]), 3599)
        spans = pairwise([*simulation.history, (3599, 0)])
        return len(simulation.changes()), sum(count * (end - start) for (start, count), (end, _) in spans)

    (ours, our_replica_seconds), (rays_default, its_replica_seconds) = map(run, (session_policy, RAYS_DEFAULT))
    assert 2 * ours < rays_default
    assert our_replica_seconds < 1.15 * its_replica_seconds


def test_a_load_that_drifts_around_a_multiple_of_the_target_is_let_alone(clock: SimpleNamespace) -> None:
    def changes(policy: Any) -> list[int]:
        clock.now = 0.0
        drift = Simulation(SETTINGS, policy, clock).run(lambda now: 24 + 2 * math.sin(now / 50), 1800)
        return drift.changes(since=120)

    assert changes(session_policy) == []
    assert len(changes(RAYS_DEFAULT)) > 5


def test_a_dip_is_answered_by_the_highest_load_of_the_wait_not_by_its_last_moment(clock: SimpleNamespace) -> None:
    simulation = Simulation(SETTINGS, session_policy, clock).run(lambda now: 60.0, 60)
    assert simulation.wanted == 8
    # Lower, up and down between 9 and 30 sessions; at the moment when the delay ends it is 9.
    simulation.run(lambda now: 30.0 if now % 20 < 10 else 9.0, 120)
    assert min(simulation.changes(since=60)) >= 4
    simulation.run(lambda now: 60.0, 30)
    assert simulation.wanted == 8


def test_a_replica_that_is_starting_is_not_given_up_while_its_caller_gave_up(clock: SimpleNamespace) -> None:
    simulation = Simulation(SETTINGS, session_policy, clock)
    simulation.START_S = 100.0
    simulation.run(lambda now: 1.0 if now < 3 else 0.0, 90)
    assert simulation.wanted == 1
    simulation.run(lambda now: 0.0, 100)
    assert simulation.wanted == 0, "once it ran idle for long enough"


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas"),
        ({"min_replicas": 0, "max_replicas": 0}, "max_replicas"),
        ({"target_sessions": 0}, "target_sessions"),
        ({"downscale_delay_s": -1}, "downscale_delay_s"),
        ({"metrics_interval_s": 5}, "metrics_interval_s"),
    ],
)
def test_bad_settings_are_named(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        convert(raw, AutoscalingSettings, where="test")
