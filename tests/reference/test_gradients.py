"""Gradients of every parameter against finite differences of the NumPy loss, which is float64; with dropout, too."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, ops

from pangu_alpha.model.loss import PAD_ID
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss
from tests.reference import numpy_pangu
from tests.reference.numpy_dropout import Drop
from tests.reference.small_model import (
    noisy_model,
    reference_shape,
    small_model_config,
    some_batch,
    tensors,
    weights_of,
)

COORDINATES = 4
STEP = 1e-5


SEED, MICRO_STEP = 5, 3


@pytest.mark.parametrize(
    "config",
    [small_model_config(final_norm="before_query", dropout=0.3), small_model_config(final_norm="after_query")],
    ids=["before_query, dropout", "after_query"],
)
def test_every_parameter_has_the_gradient_that_finite_differences_show(config):
    model = noisy_model(config, dropout_seed=SEED)
    weights = ParameterTuple(model.trainable_params())
    batch = some_batch("permuted", samples=3)
    batch.tokens[1, 12:] = PAD_ID
    network = PanguAlphaLoss(model, config.vocab_size)
    drop = Drop(config.dropout, SEED, MICRO_STEP) if config.dropout else numpy_pangu.keep_all
    loss, gradients = ops.value_and_grad(network, None, weights)(*tensors(batch), Tensor([MICRO_STEP], ms.int32))
    values = {name: value.astype(np.float64) for name, value in weights_of(weights).items()}
    shape = reference_shape(config)
    assert float(loss.asnumpy()) == pytest.approx(numpy_pangu.loss(values, shape, *batch, drop=drop), abs=1e-5)

    random = np.random.default_rng(5)
    names = [weight.name for weight in weights]
    assert len(names) == 16 * config.num_layers + 5
    largest = []
    for name, gradient in zip(names, (gradient.asnumpy() for gradient in gradients), strict=True):
        flat = values[name].reshape(-1)
        chosen = random.choice(flat.size, COORDINATES, replace=False)
        chosen[0] = np.abs(gradient).argmax()
        for index in chosen:
            kept, sides = flat[index], []
            for change in (STEP, -STEP):
                flat[index] = kept + change
                sides.append(numpy_pangu.loss(values, shape, *batch, drop=drop))
            flat[index] = kept
            expected = (sides[0] - sides[1]) / (2 * STEP)
            found = gradient.reshape(-1)[index]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), f"{name}[{index}]"
        largest.append(np.abs(gradient).max())
    flat_names = [name for name, value in zip(names, largest, strict=True) if value < 1e-4]
    # A key bias adds the same to every score of a row, which the softmax cancels; all else takes part.
    assert [name for name in flat_names if not name.endswith("key.bias")] == []
    assert len(flat_names) == config.num_layers
