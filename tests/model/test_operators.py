"""The forms that the CPU is fast at compute what MindSpore's own operators compute, forward and backward."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from pangu_alpha.model.activation import FastGelu, GeluErf, build_activation
from pangu_alpha.model.attention import Attention
from pangu_alpha.model.layer_norm import LayerNorm
from pangu_alpha.model.linear import Linear
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.parallel.context import set_single_device_context
from tests.reference.small_model import small_model_config

FAST, FUSED = Numerics(), Numerics(fused_operators=True)


@pytest.fixture(autouse=True)
def on_the_cpu():
    set_single_device_context("cpu")


def run(cell: nn.Cell, *inputs: np.ndarray) -> list[np.ndarray]:
    """Output, gradients of the inputs and of the parameters; the last input is the gradient of the output.

    Parameters are filled with the same numbers each time.
    """
    weights = ms.ParameterTuple(cell.trainable_params())
    for number, parameter in enumerate(weights):
        parameter.set_data(Tensor(noise(number, *parameter.shape)))
    tensors = [Tensor(array) for array in inputs]
    gradients = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)(cell, weights)(*tensors)
    return [tensor.asnumpy() for tensor in (cell(*tensors[:-1]), *gradients[0], *gradients[1])]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def assert_same(found: list[np.ndarray], expected: list[np.ndarray], count: int) -> None:
    assert len(found) == len(expected) == count
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_layer_norm():
    hidden, gradient = 3.0 + 2.0 * noise(10, 50, 24), noise(11, 50, 24)
    fast, fused = (run(LayerNorm(24, 1e-2, numerics), hidden, gradient) for numerics in (FAST, FUSED))
    assert_same(fast, fused, 4)


@pytest.mark.parametrize("kind", ["column", "transposed_column", "row"])
def test_linear(kind):
    hidden, gradient = noise(10, 50, 24), noise(11, 50, 16)
    fast, fused = (run(Linear(24, 16, numerics, kind), hidden, gradient) for numerics in (FAST, FUSED))
    assert_same(fast, fused, 4)
    np.testing.assert_allclose(fast[3], gradient.sum(0), rtol=1e-5, atol=1e-5)


def test_attention_with_documents():
    config = small_model_config()
    batch, length, hidden = 2, 8, config.hidden_size
    hidden_state, asking = 0.1 * noise(10, batch * length, hidden), 0.3 * noise(11, batch * length, hidden)
    visible = np.tril(np.ones((length, length), np.float32))
    visible[5:, :5] = 0.0
    mask = np.broadcast_to(-10000.0 * (1.0 - visible), (batch, 1, length, length)).copy()
    gradient = noise(12, batch * length, hidden)
    fast, fused = (
        run(Attention(config, numerics, 0), asking, hidden_state, mask, gradient) for numerics in (FAST, FUSED)
    )
    for results in fast, fused:
        del results[7]  # of the key's bias, which moves all scores of a row alike: 0 but for rounding
        del results[3]  # of the mask: nobody asks for it
    assert_same(fast, fused, 10)


def test_weights_of_hidden_steps_are_zero_exactly():
    config = small_model_config()
    attention = Attention(config, FAST, 0)
    query, key = Tensor(30.0 * noise(1, 1, 2, 4, 8)), Tensor(noise(2, 1, 2, 4, 8))
    mask = Tensor(-10000.0 * (1.0 - np.tril(np.ones((1, 1, 4, 4), np.float32))))
    weights = attention.weights(query, key, mask).asnumpy()
    assert (weights[..., 0, 1:] == 0.0).all()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)


def test_gelu_and_its_gradient_follow_the_formula():
    value = np.linspace(-12, 12, 481, dtype=np.float32)
    gradient = noise(1, 481)
    output, found = run(build_activation("gelu_tanh", FAST), value, gradient)
    x, c = value.astype(np.float64), math.sqrt(2 / math.pi)
    tanh = np.tanh(c * (x + 0.044715 * x**3))
    slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * c * (1 + 3 * 0.044715 * x**2)
    np.testing.assert_allclose(output, 0.5 * x * (1 + tanh), atol=2e-6)
    np.testing.assert_allclose(found, gradient * slope, atol=5e-6)
    assert_same([output, found], run(build_activation("gelu_tanh", FUSED), value, gradient), 2)


def test_the_gradient_of_gelu_survives_float16():
    value = Tensor(np.array([-900.0, -100.0, 100.0, 900.0], np.float16))
    assert ops.grad(build_activation("gelu_tanh", FAST))(value).asnumpy().tolist() == [0.0, 0.0, 1.0, 1.0]


def test_other_activations_are_the_same_on_every_device():
    for name, cell in {"gelu_erf": GeluErf, "fast_gelu": FastGelu}.items():
        assert type(build_activation(name, FUSED)) is cell
        assert isinstance(build_activation(name, FAST), cell)
