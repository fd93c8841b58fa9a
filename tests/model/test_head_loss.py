"""The head with its loss in one operator: what head and loss compute one after the other, forward and backward."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from pangu_alpha.model.loss import HeadLoss, TokenLoss
from pangu_alpha.parallel.context import set_single_device_context

ROWS, HIDDEN, VOCABULARY = 30, 16, 50
LABELS = np.random.default_rng(0).integers(0, VOCABULARY, ROWS).astype(np.int32)
LABELS[:4] = 7  # a token that is asked for several times


@pytest.fixture(autouse=True)
def on_the_cpu():
    set_single_device_context("cpu")


class OneAfterTheOther(nn.Cell):
    """Logits, then their loss."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul, self.loss = ops.MatMul(transpose_b=True), TokenLoss(VOCABULARY)

    def construct(self, hidden, table, labels):
        return self.loss(self.matmul(hidden, table), labels)


class AtOnce(nn.Cell):
    """The losses of HeadLoss alone."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = HeadLoss(VOCABULARY)

    def construct(self, hidden, table, labels):
        return self.loss(hidden, table, labels)[0]


def run(cell: nn.Cell, hidden: np.ndarray, table: np.ndarray) -> list[np.ndarray]:
    """Losses, and the gradients of hidden and table where each row counts differently, two not at all."""
    weights = np.linspace(0.0, 2.0, ROWS, dtype=np.float32)
    weights[5] = 0.0
    inputs = (Tensor(hidden), Tensor(table), Tensor(LABELS))
    gradients = ops.GradOperation(get_all=True, sens_param=True)(cell)(*inputs, Tensor(weights))
    return [result.asnumpy() for result in (cell(*inputs), *gradients[:2])]


def values(scale: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return (
        scale * random.standard_normal((ROWS, HIDDEN), dtype=np.float32),
        random.standard_normal((VOCABULARY, HIDDEN), dtype=np.float32),
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_losses_and_gradients(scale):
    hidden, table = values(scale)
    for ours, expected in zip(run(AtOnce(), hidden, table), run(OneAfterTheOther(), hidden, table), strict=True):
        assert np.abs(ours - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


def test_against_float64():
    hidden, table = values(2.0)
    losses, of_hidden, of_table = run(AtOnce(), hidden, table)
    logits = hidden.astype(np.float64) @ table.T
    logits -= logits.max(-1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(losses, -np.log(probabilities[np.arange(ROWS), LABELS]), atol=2e-5)
    weights = np.linspace(0.0, 2.0, ROWS)
    weights[5] = 0.0
    of_logits = weights[:, None] * (probabilities - np.eye(VOCABULARY)[LABELS])
    np.testing.assert_allclose(of_hidden, of_logits @ table, atol=2e-5)
    np.testing.assert_allclose(of_table, of_logits.T @ hidden, atol=5e-5)


def test_a_hopeless_token_has_a_finite_loss_and_its_whole_gradient():
    hidden, table = values(1000.0)
    losses, of_hidden, _ = run(AtOnce(), hidden, table)
    exact, exact_of_hidden, _ = run(OneAfterTheOther(), hidden, table)
    hopeless = exact > 86.0
    assert hopeless.any()
    assert losses[hopeless] == pytest.approx(85.19565, abs=1e-4)
    assert of_hidden == pytest.approx(exact_of_hidden, abs=1e-4)


def test_nan_is_not_hidden():
    hidden, table = values(1.0)
    hidden[3] = np.nan
    losses = AtOnce()(Tensor(hidden), Tensor(table), Tensor(LABELS)).asnumpy()
    assert np.isnan(losses[3])
    assert np.isfinite(np.delete(losses, 3)).all()
    table[LABELS[9]] = np.nan
    losses = AtOnce()(Tensor(hidden), Tensor(table), Tensor(LABELS)).asnumpy()
    assert np.isnan(losses[9])
    assert losses.dtype == np.float32 and ms.get_context("mode") == ms.GRAPH_MODE
