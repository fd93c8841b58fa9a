"""Single parts against their formulas, where the whole model would hide a slip."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from pangu_alpha.model.activation import FastGelu, GeluErf, GeluTanh
from pangu_alpha.model.layer_norm import LayerNorm
from pangu_alpha.model.loss import Loss
from pangu_alpha.model.mask import AttentionMask
from pangu_alpha.model.numerics import Numerics, resolve_numerics
from pangu_alpha.parallel.context import set_single_device_context
from tests.reference.small_model import small_model_config

ACTIVATIONS = {"gelu_tanh": GeluTanh, "gelu_erf": GeluErf, "fast_gelu": FastGelu}

FORMULAS = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "fast_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
}


@pytest.fixture(autouse=True)
def on_the_cpu():
    set_single_device_context("cpu")


@pytest.mark.parametrize("name", FORMULAS)
def test_activations(name):
    value = np.linspace(-12, 12, 481, dtype=np.float32)
    expected = [FORMULAS[name](float(x)) for x in value]
    assert ACTIVATIONS[name]()(Tensor(value)).asnumpy() == pytest.approx(expected, abs=2e-6)


def test_the_default_activation_is_the_one_of_the_released_weights():
    # -0.1588080 is the value in MindSpore's page of nn.GELU, which the released code called; erf gives -0.1586553.
    cell = ACTIVATIONS[small_model_config().activation]()
    assert cell(Tensor(np.array([-1.0], np.float32))).asnumpy()[0] == pytest.approx(-0.1588080, abs=1e-6)


def test_activations_survive_float16():
    value = Tensor(np.array([-60000.0, -300.0, 0.0, 300.0, 60000.0], np.float16))
    for cell in ACTIVATIONS.values():
        assert cell()(value).asnumpy().tolist() == [0.0, 0.0, 0.0, 300.0, 60000.0]


def test_gradients_of_activations_survive_float16():
    # Far beyond what a pre-activation reaches; the cube inside the tanh form overflows there already.
    value = Tensor(np.array([-900.0, -100.0, 100.0, 900.0], np.float16))
    for cell in ACTIVATIONS.values():
        assert ops.grad(cell())(value).asnumpy().tolist() == [0.0, 0.0, 1.0, 1.0]


def test_layer_norm_is_float32_inside():
    # In float16 the squares would overflow (256^2 > 65504) and the mean would lose its digits.
    value = (1000.0 + 300.0 * np.random.default_rng(1).standard_normal((3, 64))).astype(np.float16)
    norm = LayerNorm(64, 1e-5, Numerics(ms.float16))
    norm.gamma.set_data(Tensor(np.full(64, 2.0, np.float32)))
    norm.beta.set_data(Tensor(np.full(64, 0.5, np.float32)))
    found = norm(Tensor(value)).asnumpy()
    assert found.dtype == np.float16
    exact = value.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5) * 2.0 + 0.5
    assert found.astype(np.float64) == pytest.approx(exact, rel=1e-3, abs=1e-3)


def test_epsilon_stands_inside_the_root():
    value = np.array([[1e-3, -1e-3]], np.float32)
    norm = LayerNorm(2, 1e-5, Numerics())
    norm.gamma.set_data(Tensor(np.ones(2, np.float32)))
    norm.beta.set_data(Tensor(np.zeros(2, np.float32)))
    assert norm(Tensor(value)).asnumpy()[0, 0] == pytest.approx(1e-3 / math.sqrt(1e-6 + 1e-5), rel=1e-5)


def test_loss_of_large_logits_and_of_labels_at_a_document_border():
    logits = np.zeros((4, 10), np.float32)
    logits[:, 3] = 30000.0
    tokens, labels = np.array([[9, 5, 6, 5]], np.int32), np.array([[3, 3, 4, 4]], np.int32)
    # The step that feeds the end token (9) counts, the one that feeds <pad> (6) does not.
    loss = Loss(10)(Tensor(logits), Tensor(labels), Tensor(tokens))
    assert float(loss.asnumpy()) == pytest.approx(30000.0 / (3 + 1e-5), rel=1e-6)


def test_the_mask_hides_later_steps_and_other_documents():
    segments = np.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], np.int32)
    mask = AttentionMask(5)(Tensor(segments)).asnumpy()
    assert mask.shape == (2, 1, 5, 5)
    for sample, row in enumerate(segments):
        for asking in range(5):
            for asked in range(5):
                visible = asked <= asking and row[asked] == row[asking]
                assert mask[sample, 0, asking, asked] == (0.0 if visible else -10000.0)


def test_numerics_follow_the_device_unless_they_are_given():
    assert resolve_numerics(small_model_config(), "cpu") == Numerics(ms.float32, True, False)
    for device in ("gpu", "ascend"):
        assert resolve_numerics(small_model_config(), device) == Numerics(ms.float16, False, True)
    given = small_model_config(compute_dtype="float32", dropout_generator="counter")
    assert resolve_numerics(given, "ascend") == Numerics(ms.float32, True, True)
    assert resolve_numerics(small_model_config(dropout_generator="framework"), "cpu").counter_dropout is False
