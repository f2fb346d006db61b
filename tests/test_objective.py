"""Every term of the objective against a plain one: full tensors in float64, differentiated by autograd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.objectives.objective import Objective
from train.objectives.settings import FULL_LAW_TERMS, ObjectiveSettings, ScheduleSettings
from train.objectives.teacher import DenseTeacher, SparseTeacher

WIDTH, TEACHER_WIDTH, VOCABULARY, ETA = 5, 4, 11, 3.0
DENSE_TERMS = ("ce", "forward_kl", *FULL_LAW_TERMS)


class Inputs:
    """`count` positions; the student proposes `ids` only, or everything."""

    def __init__(self, seed: int, count: int, ids: Tensor | None = None, dtype: torch.dtype = torch.float64) -> None:
        random = torch.Generator().manual_seed(seed)
        rows = VOCABULARY if ids is None else len(ids)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

        self.states, self.weight = draw(count, WIDTH).requires_grad_(), draw(rows, WIDTH).requires_grad_()
        self.tokens = torch.randint(VOCABULARY, (count,), generator=random)
        self.ids = ids
        self.teacher = DenseTeacher(draw(count, TEACHER_WIDTH), draw(VOCABULARY, TEACHER_WIDTH))
        drawn = torch.randint(VOCABULARY, (count, 3), generator=random)
        self.sparse = SparseTeacher(drawn, torch.rand(count, 3, generator=random).half())

    def objective(
        self, terms: dict[Any, float], chunk: int, teacher: str = "online"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        made = Objective(ObjectiveSettings(terms=terms, teacher=teacher), chunk_logits=chunk * VOCABULARY)  # type: ignore[arg-type]
        law = {"none": None, "online": self.teacher, "stored": self.sparse}[teacher]
        return made(self.states, self.weight, self.tokens, law, 0, 1, ids=self.ids)

    @property
    def columns(self) -> Tensor:
        return torch.arange(VOCABULARY) if self.ids is None else self.ids

    def log_q(self) -> Tensor:
        """[count, VOCABULARY], -inf where the student proposes nothing."""
        law = (self.states @ self.weight.T).log_softmax(-1)
        return torch.full((len(law), VOCABULARY), -torch.inf, dtype=law.dtype).index_copy(1, self.columns, law)

    def log_p(self) -> Tensor:
        return (self.teacher.states @ self.teacher.weight.T).log_softmax(-1)


def plain_cross_entropy(inputs: Inputs) -> Tensor:
    losses = -inputs.log_q().gather(-1, inputs.tokens[:, None])[:, 0]
    return losses[torch.isin(inputs.tokens, inputs.columns)].sum()


def plain_forward_kl(inputs: Inputs) -> Tensor:
    """Expected over p, of the tokens that can be proposed, with the divergence of p given those as the constant."""
    p = inputs.log_p().exp()[:, inputs.columns]
    share = p.sum(-1, keepdim=True)
    divergence = torch.nn.functional.kl_div(inputs.log_q()[:, inputs.columns], p / share, reduction="none").sum(
        -1, keepdim=True
    )
    return (share * divergence).sum()


def plain_reverse_kl(inputs: Inputs) -> Tensor:
    log_q = inputs.log_q()[:, inputs.columns]
    return torch.nn.functional.kl_div(inputs.log_p()[:, inputs.columns], log_q, log_target=True, reduction="sum")


def plain_tv(inputs: Inputs) -> Tensor:
    """Over all tokens, also those that the student never proposes."""
    return (inputs.log_p().exp() - inputs.log_q().exp()).abs().sum() / 2


def plain_lk(inputs: Inputs) -> Tensor:
    total = 0.0 * inputs.states.sum()
    for row in range(len(inputs.tokens)):
        one = Inputs(0, 0, inputs.ids)
        one.states, one.weight = inputs.states[row : row + 1], inputs.weight
        one.teacher = DenseTeacher(inputs.teacher.states[row : row + 1], inputs.teacher.weight)
        variation = plain_tv(one)
        share = torch.exp(-ETA * (1 - variation.detach()))
        total = total + share * plain_forward_kl(one) + (1 - share) * variation
    return total


PLAIN: dict[str, Callable[[Inputs], Tensor]] = {
    "ce": plain_cross_entropy,
    "forward_kl": plain_forward_kl,
    "reverse_kl": plain_reverse_kl,
    "tv": plain_tv,
    "lk": plain_lk,
}
VOCABULARIES = st.none() | st.sets(st.integers(0, VOCABULARY - 1), min_size=1).map(lambda s: torch.tensor(sorted(s)))


def assert_same(inputs: Inputs, loss: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(loss, plain, rtol=1e-11, atol=1e-11)
    variables = [inputs.states, inputs.weight]
    expected = torch.autograd.grad(plain * 3, variables, allow_unused=True)
    for got, want in zip(torch.autograd.grad(loss * 3, variables), expected, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("term", DENSE_TERMS)
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(0, 7), st.integers(1, 8), VOCABULARIES)
def test_each_term_and_its_gradients_are_those_of_plain_tensors(
    term: str, seed: int, count: int, chunk: int, ids: Tensor | None
) -> None:
    inputs = Inputs(seed, count, ids)
    loss, sums = inputs.objective({term: 1.0}, chunk)
    assert_same(inputs, loss, PLAIN[term](inputs))
    assert sums[term].item() == pytest.approx(loss.item(), abs=1e-12)
    acceptance = torch.minimum(inputs.log_p().exp(), inputs.log_q().exp()).sum()
    assert sums["acceptance"].item() == pytest.approx(acceptance.item(), abs=1e-11)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 8), VOCABULARIES, st.lists(st.floats(0.01, 2), min_size=5, max_size=5))
def test_a_sum_of_terms_is_weighted(seed: int, chunk: int, ids: Tensor | None, weights: list[float]) -> None:
    inputs = Inputs(seed, 6, ids)
    terms = dict(zip(DENSE_TERMS, weights, strict=True))
    loss, sums = inputs.objective(terms, chunk)
    assert_same(inputs, loss, sum((w * PLAIN[name](inputs) for name, w in terms.items()), torch.zeros(())))
    for name in terms:
        assert sums[name].item() == pytest.approx(PLAIN[name](inputs).item(), rel=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(0, 7), st.integers(1, 8), VOCABULARIES)
def test_a_sparse_law_is_a_weighted_cross_entropy(seed: int, count: int, chunk: int, ids: Tensor | None) -> None:
    inputs = Inputs(seed, count, ids)
    loss, sums = inputs.objective({"forward_kl": 1.0}, chunk, "stored")
    known = torch.isin(inputs.sparse.ids, inputs.columns)
    log_q = inputs.log_q().gather(-1, inputs.sparse.ids)
    assert_same(inputs, loss, -(inputs.sparse.weights.double() * log_q)[known].sum())
    assert sums.keys() == {"forward_kl"}


def test_draws_from_the_teacher_give_the_gradient_of_its_full_law() -> None:
    """Exactly, once the draws are the whole vocabulary with its probabilities."""
    inputs = Inputs(3, 6)
    whole = torch.arange(VOCABULARY).expand(6, -1)
    inputs.sparse = SparseTeacher(whole, inputs.log_p().exp())
    variables = [inputs.states, inputs.weight]
    sparse = torch.autograd.grad(inputs.objective({"forward_kl": 1.0}, 2, "stored")[0], variables)
    dense = torch.autograd.grad(inputs.objective({"forward_kl": 1.0}, 2)[0], variables)
    torch.testing.assert_close(sparse, dense, rtol=1e-10, atol=1e-12)


def test_a_teacher_that_says_what_the_student_says_leaves_nothing_to_learn() -> None:
    inputs = Inputs(4, 6)
    inputs.teacher = DenseTeacher(inputs.states.detach(), inputs.weight.detach())
    for term in ("forward_kl", "reverse_kl", "tv", "lk"):
        loss, sums = inputs.objective({term: 1.0}, 4)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert inputs.states.grad is not None and inputs.states.grad.abs().max() < 1e-12
        assert sums["acceptance"].item() == pytest.approx(6)


def test_a_teacher_that_writes_only_what_the_student_lacks_is_never_accepted() -> None:
    inputs = Inputs(5, 4, torch.arange(VOCABULARY - 1))
    certain = torch.zeros(VOCABULARY, 1, dtype=torch.float64)
    certain[-1] = 1e3
    inputs.teacher = DenseTeacher(torch.ones(4, 1, dtype=torch.float64), certain)
    loss, sums = inputs.objective({"tv": 1.0, "lk": 0.0, "forward_kl": 0.0}, 3)
    assert loss.item() == pytest.approx(4) and sums["acceptance"].item() == pytest.approx(0)
    assert sums["forward_kl"].item() == pytest.approx(0)


def test_half_precision_sums_in_float32() -> None:
    terms = dict.fromkeys(DENSE_TERMS, 1.0)
    inputs, exact = Inputs(0, 12, dtype=torch.bfloat16), Inputs(0, 12)
    loss, _ = inputs.objective(terms, 5)
    loss.backward()
    assert loss.dtype == torch.float32
    assert inputs.states.grad is not None and inputs.weight.grad is not None
    assert inputs.states.grad.dtype == inputs.weight.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(exact.objective(terms, 5)[0].item(), rel=2e-2)


def test_no_tensor_of_all_positions_by_the_vocabulary_is_made() -> None:
    inputs = Inputs(2, 100)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            largest = max(largest, result.numel() if isinstance(result, Tensor) else 0)
            return result

    with Watch():
        loss, _ = inputs.objective(dict.fromkeys(DENSE_TERMS, 1.0), chunk=7)
        loss.backward()
    assert largest == inputs.states.numel()  # and so less than half of [positions, vocabulary]


def test_weights_change_linearly_until_their_step_and_stay() -> None:
    schedule = ScheduleSettings(until={"lk": 2.0}, until_step=10)
    made = ObjectiveSettings(terms={"ce": 1.0}, schedule=schedule, teacher="online")
    assert made.names == ("ce", "lk")
    assert made.weights(0, 100) == {"ce": 1.0, "lk": 0.0}
    assert made.weights(5, 100) == {"ce": 0.5, "lk": 1.0}
    assert made.weights(10, 100) == made.weights(99, 100) == {"ce": 0.0, "lk": 2.0}
    whole_run = ObjectiveSettings(schedule=ScheduleSettings(until={"tv": 1.0}), teacher="online")
    assert whole_run.weights(4, 5) == {"ce": 0.0, "tv": 1.0}
    assert whole_run.weights(0, 1) == {"ce": 1.0, "tv": 0.0}
    inputs = Inputs(6, 5)
    objective = Objective(made)
    halfway = objective(inputs.states, inputs.weight, inputs.tokens, inputs.teacher, 5, 100)
    assert_same(inputs, halfway[0], 0.5 * plain_cross_entropy(inputs) + plain_lk(inputs))
    assert tuple(halfway[1]) == objective.names == ("ce", "lk", "acceptance")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terms": {"lk": 1.0}}, "term lk compares with a teacher, but teacher is none"),
        ({"terms": {"tv": 1.0}, "teacher": "stored"}, "term tv needs the teacher's full law, but teacher is stored"),
        ({"terms": {"ce": -1.0}}, "terms: the weight of ce is -1.0"),
        ({"terms": {"ce": 0.0}}, "terms gives no term a weight above 0"),
        ({"lk_eta": -1.0}, "lk_eta is -1.0"),
    ],
)
def test_an_objective_that_cannot_be_computed_names_the_setting(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings(**change)


def test_a_schedule_is_checked_like_the_terms() -> None:
    with pytest.raises(ValueError, match="term tv compares with a teacher"):
        ObjectiveSettings(schedule=ScheduleSettings(until={"tv": 1.0}))
    with pytest.raises(ValueError, match=r"schedule\.until gives no term"):
        ScheduleSettings(until={})
    with pytest.raises(ValueError, match=r"schedule\.until_step is 0"):
        ScheduleSettings(until={"ce": 1.0}, until_step=0)
