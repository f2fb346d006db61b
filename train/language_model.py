"""The causal language model as the training loop sees it: packed rows in, their loss out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from common import models
from common.vocabulary import read_vocabulary
from train.objectives.objective import Objective
from train.objectives.settings import ObjectiveSettings
from train.objectives.teacher import DenseTeacher, SparseTeacher
from train.packing import IGNORED


class OnlineTeacher:
    """A frozen model that gives its law on the rows that the student is trained on.

    Not a module, so that a PackedLanguageModel can hold it without its weights being trained, sharded or saved.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, position_ids: Tensor, wanted: Tensor) -> DenseTeacher:
        """Of the positions after those that are `wanted` [rows, row length - 1]."""
        self._model.to(input_ids.device)
        states = final_states(self._model, input_ids, position_ids)[:, :-1][wanted]
        return DenseTeacher(states, self._model.get_output_embeddings().weight)


class PackedLanguageModel(nn.Module):
    """A causal language model that answers with its loss on packed rows.

    Args:
        model: the student.
        objective: what it is taught; cross-entropy by default.
        steps: of the whole run, for objectives that change with the step.
        teacher: for an objective with an online teacher.
        vocabulary: [V] token ids, ascending, that the student proposes; None: all.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective | None = None,
        *,
        steps: int = 1,
        teacher: OnlineTeacher | None = None,
        vocabulary: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._objective = objective or Objective(ObjectiveSettings())
        self._steps = steps
        self._teacher = teacher
        self._vocabulary: Tensor | None
        self.register_buffer("_vocabulary", vocabulary, persistent=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sums beside the loss."""
        return self._objective.names

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        stored: tuple[Tensor, Tensor] | None = None,
        step: int = 0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss summed over the labelled positions of [rows, row length] tokens, and the objective's sums by name.

        See PackedRows; `stored` are its teacher_ids and teacher_weights [rows, row length, K]. `step` counts from 0.
        """
        wanted = labels[:, 1:] != IGNORED  # position t is predicted from t - 1
        states = final_states(self.model, input_ids, position_ids)[:, :-1][wanted]
        weight = self.model.get_output_embeddings().weight
        if self._vocabulary is not None:
            weight = weight.index_select(0, self._vocabulary)
        teacher: DenseTeacher | SparseTeacher | None = None
        if self._teacher is not None:
            teacher = self._teacher(input_ids, position_ids, wanted)
        elif stored is not None:
            ids, weights = (array[:, 1:][wanted] for array in stored)
            teacher = SparseTeacher(ids.long(), weights)
        tokens = labels[:, 1:][wanted].long()
        return self._objective(states, weight, tokens, teacher, step, self._steps, ids=self._vocabulary)


def final_states(model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """[rows, row length, width]; without a mask and a cache, the restarts in `position_ids` keep documents apart."""
    decoder = model.get_decoder()
    output = decoder(input_ids=input_ids, position_ids=position_ids, attention_mask=None, use_cache=False)
    return output.last_hidden_state


def load_language_model(
    folder: str,
    settings: ObjectiveSettings,
    *,
    steps: int,
    row_length: int,
    teacher: str | None = None,
    teacher_dtype: torch.dtype = torch.float32,
) -> PackedLanguageModel:
    """The model in `folder` with its vocabulary, its objective and, if that asks for one, the `teacher` (a folder).

    Raises ValueError naming the folder of a model that cannot be trained, or of a teacher that does not fit.
    """
    online = None
    if settings.teacher == "online":
        if teacher is None:
            raise ValueError("the objective's teacher is online, but no teacher is named")
        check_teacher(teacher, folder, row_length)
        online = OnlineTeacher(load_model(teacher, teacher_dtype))
    return PackedLanguageModel(
        load_model(folder).train(), Objective(settings), steps=steps, teacher=online, vocabulary=read_vocabulary(folder)
    )


def check_teacher(teacher: str, student: str, row_length: int) -> None:
    """Raises ValueError naming both folders if their token ids mean different things, or rows are too long for it."""
    folders = (Path(teacher), Path(student))
    law, learner = (models.fingerprint(models.load_tokenizer(f), models.load_config(f)) for f in folders)
    problem = models.mismatch(law, learner, context_length=row_length)
    if problem is None and law.context_length < row_length:
        problem = f"the teacher's context is {law.context_length} tokens, rows have {row_length}"
    if problem is not None:
        raise ValueError(f"{teacher} cannot teach {student}: {problem}")


def load_model(folder: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal language model in `folder`.

    It is loaded in its dtype, not cast to it: a cast also rounds what is no weight, such as the frequencies of rotary
    embeddings, and the law is then another model's. Raises ValueError naming the folder if it cannot be read, or if
    its output layer is more than a projection.
    """
    model = models.load_model(Path(folder), dtype=dtype)
    _check_output_layer(model, folder)
    return model


@contextmanager
def exact_buffers(module: nn.Module) -> Iterator[None]:
    """Weights may be cast meanwhile; what is no weight keeps its precision, as where the model is loaded to serve."""
    exact = dict(module.named_buffers())
    yield
    for name, cast in list(module.named_buffers()):
        if cast.dtype != exact[name].dtype:
            owner, _, own_name = name.rpartition(".")
            setattr(module.get_submodule(owner), own_name, exact[name].to(cast.device))


@torch.no_grad()
def _check_output_layer(model: PreTrainedModel, folder: str) -> None:
    """The loss takes logits = states x weight; some families scale or cap them, and would train on a wrong loss."""
    ids = torch.arange(2)[None]
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    weight = model.get_output_embeddings().weight
    plain, logits = states.float() @ weight.float().T, model(input_ids=ids, use_cache=False).logits
    # One rounding of a logit is half of eps.
    if not torch.allclose(plain, logits.float(), rtol=max(1e-3, torch.finfo(logits.dtype).eps), atol=1e-4):
        raise ValueError(f"{folder}: its output layer is more than a projection (bias, scaling or capping of logits)")
