"""The costs of models on this machine: steps of the real engines, and acceptance as it was evaluated."""

from __future__ import annotations

import logging
from pathlib import Path

from cluster.bench.coordination import measure_coordination
from cluster.capacity.costs import Costs, DrafterCosts, StepCosts
from cluster.capacity.steps import TimedEngine
from cluster.capacity.traffic import Traffic
from cluster.deployment import usable_drafters
from cluster.run import Run
from common.engine.drafters import load_drafter
from common.engine.drafting import Drafting
from common.engine.verification import Verification
from common.models import load_model
from common.registry import Manifest, Registry
from common.settings import SettingsError
from serve.settings import ReplicaSettings
from train.provenance import provenance

TEXTS = (1, 2, 4, 8, 16, 32, 64)
"""In a step."""
DRAFT = 7
"""Tokens of each text that are checked besides its own, in the larger steps of a verifier."""

logger = logging.getLogger(__name__)


def measure(run: Run, traffic: Traffic) -> Costs:
    """Of the run's target and of its registered drafters for the traffic's languages; and of coordination.

    Raises ModelError, RegistryError, or SettingsError if a drafter was not evaluated at the traffic's temperature, or
    the target is divided.
    """
    serve, registry = run.config.serve, Registry(run.registry)
    if serve.verifier.tensor_parallel > 1:
        raise SettingsError("serve.verifier.tensor_parallel: a divided target is not measured here; write its --costs")
    usable = usable_drafters(run.config, run.target, run.registry)
    drafters: dict[str, DrafterCosts] = {}
    for language in traffic.languages:
        manifest = usable.get(language)
        if manifest is None:
            logger.warning("%s is planned without a drafter: the server would have none", language)
            continue
        rates = acceptance(manifest, traffic.temperature)
        steps = drafter_steps(registry.fetch(manifest, run.folder / "cache"), serve.drafter, traffic.temperature)
        drafters[language] = DrafterCosts(steps_ms=steps.steps_ms, acceptance=rates)
    return Costs(
        verifier=verifier_steps(run.target, serve.verifier, traffic.temperature),
        drafters=drafters,
        coordination=measure_coordination(),
        temperature=traffic.temperature,
        provenance=provenance(target=str(run.target), registry=run.registry),
    )


def verifier_steps(folder: Path, settings: ReplicaSettings, temperature: float) -> StepCosts:
    """Of the target in `folder`. Raises ModelError if it cannot be loaded."""
    sizes = [(1, 0), (1, 1), (1, 3), *((texts, DRAFT) for texts in TEXTS)]
    model = load_model(folder, dtype=settings.dtype)
    engine = TimedEngine(model, Verification(), settings, sizes, temperature=temperature)
    return StepCosts(steps_ms=tuple(engine.time()))


def drafter_steps(folder: Path, settings: ReplicaSettings, temperature: float) -> StepCosts:
    """Of the drafter in `folder`, a token of each text a step. Raises ModelError if it cannot be loaded."""
    sizes = [(texts, 1) for texts in TEXTS]
    model = load_drafter(folder, dtype=settings.dtype)
    engine = TimedEngine(model, Drafting(), settings, sizes, temperature=temperature)
    return StepCosts(steps_ms=tuple(engine.time()))


def acceptance(manifest: Manifest, temperature: float) -> tuple[float, ...]:
    """P(token k is accepted | all before it are), as evaluated. Raises SettingsError, naming what was evaluated."""
    at, metrics = f"/T={temperature:g}", manifest.metrics
    lengths = [name for name in metrics if name.startswith("accepted_at_")]
    shares = [metrics[f"accepted_at_{k}{at}"] for k in range(1, len(lengths) + 1) if f"accepted_at_{k}{at}" in metrics]
    if not shares:
        known = sorted({name.partition("/T=")[2] for name in lengths})
        found = f"was evaluated at {', '.join(known)}" if known else "was not evaluated"
        raise SettingsError(f"temperature: {manifest.language}/{manifest.version} {found}, not at {temperature:g}")
    return tuple(share / before if before else 0.0 for before, share in zip([1.0, *shares], shares, strict=False))
