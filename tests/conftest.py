"""Shared fixtures: tiny models that run in milliseconds, and one Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from cluster.ray_environment import configure_ray

# A token would be written to the home directory otherwise.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
configure_ray()

# The same examples on every run, and no time limit for one: machines differ, and some are busy.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever a command has set in this process: with more, tiny models wait for threads, ten times as long."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray with a fixed size, whatever the machine has."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="warning")
    yield
    ray.shutdown()
