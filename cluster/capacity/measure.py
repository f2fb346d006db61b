"""The costs of models on this machine: steps of the real engines, and acceptance as it was evaluated."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch

from cluster.bench.coordination import measure_coordination
from cluster.capacity.costs import Costs, DrafterCosts, StepCosts
from cluster.capacity.traffic import Traffic
from cluster.deployment import usable_drafters
from cluster.run import Run
from common.engine.cache import BLOCK_SIZE
from common.engine.drafters import DraftModel, load_drafter
from common.engine.drafting import Drafting
from common.engine.engine import Engine, Role
from common.engine.verification import Verification
from common.messages import Close, Draft, Question, Reply, Verdict
from common.models import load_model
from common.registry import Manifest, Registry
from common.rounds import TokenLog
from common.settings import SettingsError
from common.types import GenerationRequest, SamplingParams, StepCost
from serve.model_runner import model_runner
from serve.settings import ReplicaSettings
from train.provenance import provenance

PROMPT = 64
"""Tokens of a text before the first step that is timed, or a quarter of the model's context."""
ROUNDS = 7
"""Timed of each size; the median counts."""
TEXTS = (1, 2, 4, 8, 16, 32, 64)
"""In a step."""
DRAFT = 7
"""Tokens of each text that are checked besides its own, in the larger steps of a verifier."""
OUTPUT = (1 + ROUNDS) * (1 + DRAFT)
"""The most that a text can have written by the last of them."""
KV_TOKENS = max(TEXTS) * (PROMPT + OUTPUT + BLOCK_SIZE)

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
        steps = drafter_steps(registry.fetch(manifest, run.folder / "cache"), serve.drafter)
        drafters[language] = DrafterCosts(steps_ms=steps.steps_ms, acceptance=rates)
    return Costs(
        verifier=verifier_steps(run.target, serve.verifier),
        drafters=drafters,
        coordination=measure_coordination(),
        temperature=traffic.temperature,
        provenance=provenance(target=str(run.target), registry=run.registry),
    )


def verifier_steps(folder: Path, settings: ReplicaSettings) -> StepCosts:
    """Of the target in `folder`. Raises ModelError if it cannot be loaded."""
    sizes = [(1, 0), (1, 1), (1, 3), *((texts, DRAFT) for texts in TEXTS)]
    return _steps(load_model(folder, dtype=settings.dtype), Verification(), settings, sizes)


def drafter_steps(folder: Path, settings: ReplicaSettings) -> StepCosts:
    """Of the drafter in `folder`, a token of each text a step. Raises ModelError if it cannot be loaded."""
    sizes = [(texts, 0) for texts in TEXTS]
    return _steps(load_drafter(folder, dtype=settings.dtype), Drafting(), settings, sizes)


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


def _steps(model: DraftModel, role: Role, settings: ReplicaSettings, sizes: Iterable[tuple[int, int]]) -> StepCosts:
    """Of so many texts with so many tokens drafted, each size; at a drafter nothing is."""
    torch.set_num_threads(settings.threads)
    runner = model_runner(model, msgspec.structs.replace(settings, kv_tokens=KV_TOKENS))
    costs: list[StepCost] = []
    engine = Engine(runner, role, prefill_chunk=KV_TOKENS, on_step=costs.append)
    found = []
    for texts, drafted in sizes:
        taken = list(_rounds(engine, [_Text(number, runner.context_length, drafted, role) for number in range(texts)]))
        found.append((costs[-1].tokens, round(1e3 * median(taken), 3)))
    return StepCosts(steps_ms=tuple(found))


def _rounds(engine: Engine, texts: Sequence[_Text]) -> Iterator[float]:
    """Seconds of each step but the first, which reads the prompts."""
    for number, text in enumerate(texts):
        engine.handle(number, text.log.open(number, ""))
    for turn in range(1 + ROUNDS):
        for number, text in enumerate(texts):
            engine.handle(number, text.question(number))
        began, replies = time.perf_counter(), list[tuple[Any, Reply]]()
        while len(replies) < len(texts):
            replies += engine.step()
        if turn:
            yield time.perf_counter() - began
        for number, reply in replies:
            texts[number].take(reply)
    for number in range(len(texts)):
        engine.handle(number, Close(session=number))


class _Text:
    """Goes on as the engine says: a verifier by its verdicts, a drafter by its drafts."""

    def __init__(self, number: int, context: int, drafted: int, role: Role) -> None:
        self._draft = (0,) * drafted
        prompt = min(PROMPT, context // 4)
        self._verifies = isinstance(role, Verification)
        # No two begin alike, so that none shares another's keys and values.
        tokens = (1 + number, *range(1, prompt))
        output, greedy = min(OUTPUT, context - prompt), SamplingParams(temperature=0.0)
        self.log = TokenLog(GenerationRequest(prompt=tokens, max_tokens=output, sampling=greedy))
        self._known = prompt

    def question(self, session: int) -> Question:
        if self._verifies:
            return self.log.verify(session, self._draft)
        known, self._known = self._known, len(self.log.tokens)
        return self.log.propose(session, known, 1)

    def take(self, reply: Reply) -> None:
        match reply:
            case Verdict():
                self.log.commit(self._draft, reply)
            case Draft():
                self.log.commit(
                    (), Verdict(session=reply.session, base=reply.base, accepted=0, next_token=reply.tokens[0])
                )
            case _:
                raise AssertionError(f"an engine answered {reply}")
