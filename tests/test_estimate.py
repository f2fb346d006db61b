"""What a dry run tells of a training's time: the drafter's steps, its teacher's, and the judging of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import load_config
from train import estimate
from train.estimate import DECODING_UTILISATION, UTILISATION, Estimator, parameters
from train.plan import Plan
from train.progress import ProgressLog, StepFigures, read_progress

SPEED = 1e9
ONLINE = "train.finetune.objective={terms: {tv: 1.0}, teacher: online}"
JUDGED = ("train.finetune.validate_every=40", "train.evaluate.validation_prompts=8", "train.evaluate.max_tokens=10")
"""Of 150 steps: after 40, 80, 120 and the last."""
GPU = ("train.workers.use_gpu=true", "train.workers.validation_gpus=0.5")
TOKENS = 150 * 8 * 256


@pytest.fixture(autouse=True)
def matrix_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "matrix_speed", lambda: SPEED)


def finetuning(folder: Path, *overrides: str) -> float | None:
    """Its seconds, in a run in `folder`."""
    recipe = load_config("quickstart", overrides).train
    plan = Plan(recipe, ["de"], run=folder, data="d", target=None, registry=str(folder / "registry"))
    return Estimator(recipe, plan).estimate(plan.steps["de/finetune"]).seconds


def sizes() -> tuple[int, int]:
    """Parameters of the drafter and of the target."""
    recipe = load_config("quickstart").train
    assert recipe.target is not None
    return parameters(recipe.drafter, recipe.target.vocab_size), parameters(
        recipe.target.shape, recipe.target.vocab_size
    )


def test_a_teacher_that_runs_along_takes_a_forward_pass_beside_the_drafters_forward_and_backward(
    tmp_path: Path,
) -> None:
    drafter, target = sizes()
    speed = SPEED * UTILISATION
    assert finetuning(tmp_path) == pytest.approx(6 * drafter * TOKENS / speed)
    assert finetuning(tmp_path, ONLINE) == pytest.approx((6 * drafter + 2 * target) * TOKENS / speed)


def test_checkpoints_are_judged_by_decoding_unless_a_gpu_does_it_meanwhile(tmp_path: Path) -> None:
    plain, (_, target) = finetuning(tmp_path), sizes()
    assert plain is not None
    tokens = 4 * 8 * 2 * 10
    judging = 2 * target * tokens / (SPEED * DECODING_UTILISATION)
    assert finetuning(tmp_path, *JUDGED) == pytest.approx(plain + judging)
    assert finetuning(tmp_path, *JUDGED, GPU[1]) == pytest.approx(plain)


def test_what_was_seen_of_a_training_says_more_than_a_guess(tmp_path: Path) -> None:
    assert finetuning(tmp_path, ONLINE, *GPU) is None
    output = tmp_path / "de" / "finetune" / "model"
    log = ProgressLog(str(output), 150, 8 * 256, resumed_step=0)
    log.write(1, StepFigures(loss=1.0, learning_rate=0.1, gradient_norm=1.0))
    seen = read_progress(output)
    assert seen is not None
    assert finetuning(tmp_path, ONLINE, *GPU) == pytest.approx(TOKENS / seen.tokens_per_second)
