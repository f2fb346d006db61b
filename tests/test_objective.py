import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.objective import cross_entropy
from train.packing import IGNORED

ROWS, LENGTH, WIDTH, VOCABULARY = 2, 7, 5, 11


def inputs(seed: int, labelled_share: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(ROWS, LENGTH, WIDTH, generator=random, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random, dtype=dtype, requires_grad=True)
    labels = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=random)
    labels[torch.rand(ROWS, LENGTH, generator=random) >= labelled_share] = IGNORED
    return hidden, weight, labels


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.integers(1, 20))
def test_loss_and_gradients_are_those_of_the_plain_cross_entropy(seed: int, share: float, chunk: int) -> None:
    hidden, weight, labels = inputs(seed, share, torch.float64)
    loss, count = cross_entropy(hidden, weight, labels, chunk=chunk)
    grads = torch.autograd.grad(loss * 3, [hidden, weight])
    logits = (hidden @ weight.T)[:, :-1].reshape(-1, VOCABULARY)
    plain = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads, torch.autograd.grad(plain * 3, [hidden, weight]), rtol=1e-10, atol=1e-12)
    assert count == int((labels[:, 1:] != IGNORED).sum())


def test_half_precision_sums_in_float32() -> None:
    hidden, weight, labels = inputs(0, 1.0, torch.bfloat16)
    loss, _ = cross_entropy(hidden, weight, labels)
    loss.backward()
    exact, _ = cross_entropy(hidden.double(), weight.double(), labels)
    assert loss.dtype == torch.float32
    assert hidden.grad is not None and hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(exact.item(), rel=1e-2)


def test_positions_without_a_label_are_not_projected() -> None:
    hidden, weight, labels = inputs(1, 0.3, torch.float64)
    with torch.no_grad():
        hidden[:, :-1][labels[:, 1:] == IGNORED] = float("nan")
        hidden[:, -1] = float("nan")
    loss, count = cross_entropy(hidden, weight, labels)
    assert count > 0 and torch.isfinite(loss)


def test_no_tensor_of_all_positions_by_the_vocabulary_is_made() -> None:
    hidden, weight, labels = inputs(2, 1.0, torch.float64)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dim() == 2 and result.shape[-1] == VOCABULARY:
                largest = max(largest, result.shape[0])
            return result

    with Watch():
        loss, count = cross_entropy(hidden, weight, labels, chunk=3)
        loss.backward()
    assert largest == WIDTH > 3  # the transposed weight; a chunk of logits is shorter
    assert count == ROWS * (LENGTH - 1)
