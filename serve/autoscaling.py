"""How many replicas of one kind there are: as the texts in progress ask for, soon upwards, slowly downwards.

A text holds one lease at a replica, which is a streaming call that stays open: what Ray Serve counts as ongoing and
queued requests are texts in progress. Ray averages their number over a look-back, asks the policy for a number of
replicas ten times a second, and acts once the answer has pointed the same way for the delay of that direction.
Starting the first replica for a waiting lease is Ray's own doing, at once, without the policy.

Ray's default policy, load / target rounded up, changes its mind with every text that comes or goes around a multiple
of the target, and after the delay it goes down to whatever the load is at that instant. This one keeps a replica
until its load fits into the others with room to spare, and goes down no further than the highest load seen while it
waited.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from common.settings import Settings

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

HEADROOM = 0.2
"""Part of the target that stays free in the replicas that are left after some are given up."""


class AutoscalingSettings(Settings, frozen=True, kw_only=True):
    """Limits and pace of one kind of replica."""

    min_replicas: int = 1
    """0 gives the last replica up when idle; the next text is begun without it and starts it again."""
    max_replicas: int = 4
    """The most there are, whatever the load."""
    target_sessions: float = 16.0
    """Texts in progress that a replica should have; fewer than max_sessions, at which it takes no more."""
    upscale_delay_s: float = 2.0
    """How long more must be wanted before one is added."""
    downscale_delay_s: float = 60.0
    """How long fewer must be enough before one is given up."""
    downscale_to_zero_delay_s: float = 300.0
    """How long the last replica stays idle before it is given up; longer than it takes to start."""
    metrics_interval_s: float = 1.0
    """How often routers report their texts in progress."""
    look_back_s: float = 4.0
    """The reports of this period are averaged."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError(
                f"min_replicas and max_replicas must satisfy 0 <= min <= max and 1 <= max, "
                f"not {self.min_replicas} and {self.max_replicas}"
            )
        if self.target_sessions <= 0:
            raise ValueError(f"target_sessions must be positive, not {self.target_sessions}")
        for name in ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 < self.metrics_interval_s < self.look_back_s:
            raise ValueError(
                f"metrics_interval_s must be positive and shorter than look_back_s, "
                f"not {self.metrics_interval_s} and {self.look_back_s}"
            )

    def to_ray(self) -> AutoscalingConfig:
        """What `deployment.options(autoscaling_config=...)` takes."""
        # Here, because configurations are read without Ray.
        from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

        return AutoscalingConfig(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            target_ongoing_requests=self.target_sessions,
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            downscale_to_zero_delay_s=self.downscale_to_zero_delay_s,
            metrics_interval_s=self.metrics_interval_s,
            look_back_period_s=self.look_back_s,
            policy=AutoscalingPolicy(policy_function="serve.autoscaling:session_policy"),
        )


def needed_replicas(sessions: float, target_sessions: float, replicas: int) -> int:
    """Replicas for `sessions` texts in progress, where there are `replicas` now.

    Example with a target of 10: 21 texts need 3 replicas. These 3 are kept until the texts fit into 2 that each have
    a fifth of the target free: down to 16. So 2 become 3 above 20 texts, and 3 become 2 at 16 or fewer.
    """
    least = math.ceil(sessions / target_sessions)
    most = math.ceil(sessions / (target_sessions * (1 - HEADROOM)))
    return max(least, min(replicas, most))


def session_policy(ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Ray Serve's autoscaling policy: the wanted number of replicas, and what to remember.

    Runs in Serve's controller, to which it is sent by value. Delays are applied to its answer by Ray.
    """
    replicas = ctx.target_num_replicas
    if ctx.current_num_replicas == 0:  # none runs yet: those being started are kept until they do
        return replicas, {}
    needed = needed_replicas(ctx.total_num_requests, ctx.config.get_target_ongoing_requests(), replicas)
    needed = max(ctx.capacity_adjusted_min_replicas, min(ctx.capacity_adjusted_max_replicas, needed))
    if needed >= replicas:
        return needed, {}
    # The most that was needed since it was first fewer than `replicas`.
    waiting = ctx.policy_state.get("waiting_below") == replicas
    peak = max(needed, ctx.policy_state["peak"]) if waiting else needed
    return peak, {"waiting_below": replicas, "peak": peak}
