"""The model against an independent forward in NumPy: both norm orders, plain GPT, documents, any order of entry."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from pangu_alpha.model.loss import PAD_ID
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
from tests.reference import numpy_pangu
from tests.reference.small_model import (
    noisy_model,
    reference_shape,
    small_model_config,
    some_batch,
    tensors,
    weights_of,
)

CONFIGS = {
    "before_query": small_model_config(num_layers=3),
    "after_query": small_model_config(num_layers=3, final_norm="after_query"),
    "plain GPT": small_model_config(query_layer=False),
}


class Logits(ms.nn.Cell):
    """Logits and loss of one graph, so that each model compiles once."""

    def __init__(self, model: PanguAlphaModel, vocab_size: int) -> None:
        super().__init__(auto_prefix=False)
        self.model, self.loss = model, PanguAlphaLoss(model, vocab_size).loss

    def construct(self, tokens, positions, query_positions, segments, labels):
        logits = self.model(tokens, positions, query_positions, segments)
        return logits, self.loss(logits, labels, tokens)


@pytest.fixture(scope="module", params=CONFIGS)
def compiled(request):
    config = CONFIGS[request.param]
    model = noisy_model(config)
    return config, weights_of(model.get_parameters()), Logits(model, config.vocab_size)


def compare(compiled, batch) -> np.ndarray:
    config, weights, cell = compiled
    logits, loss = cell(*tensors(batch))
    expected = numpy_pangu.logits(weights, reference_shape(config), *batch[:4])
    assert np.abs(expected).max() > 1.0  # so that 1e-4 says something
    assert np.abs(logits.asnumpy().reshape(expected.shape) - expected).max() < 1e-4
    assert float(loss.asnumpy()) == pytest.approx(numpy_pangu.loss(weights, reference_shape(config), *batch), abs=1e-4)
    return expected


@pytest.mark.parametrize("order", ["sequential", "permuted", "mixed"])
def test_logits_and_loss(compiled, order):
    batch = some_batch(order)
    shuffled = (batch.positions != some_batch("sequential").positions).any(-1)
    assert shuffled.sum() in {"sequential": [0], "permuted": [4], "mixed": [1, 2, 3]}[order]
    assert batch.segments.max() == 3
    compare(compiled, batch)


def test_any_positions_and_query_positions(compiled):
    # Not only what the data pipeline makes: every index of the tables may be asked for at every step.
    batch = some_batch()
    random = np.random.default_rng(7)
    positions, asked = random.integers(0, 16, (2, *batch.tokens.shape)).astype(np.int32)
    moved = batch._replace(positions=positions, query_positions=asked)
    logits = compare(compiled, moved)
    other = compare(compiled, moved._replace(query_positions=(asked + 1) % 16))
    assert (np.abs(logits - other).max() > 0.1) == compiled[0].query_layer


def test_documents_do_not_see_each_other(compiled):
    batch = some_batch()
    apart = compare(compiled, batch)
    joined = compare(compiled, batch._replace(segments=np.zeros_like(batch.segments)))
    assert np.array_equal(apart[0], joined[0])  # a single document
    assert np.abs(apart[3] - joined[3]).max() > 0.01


def test_padding_is_not_counted(compiled):
    batch = some_batch()
    tokens = batch.tokens.copy()
    tokens[1, 9:] = PAD_ID
    compare(compiled, batch._replace(tokens=tokens))
    _, _, cell = compiled
    nothing = batch._replace(tokens=np.full_like(tokens, PAD_ID))
    assert float(cell(*tensors(nothing))[1].asnumpy()) == 0.0


def test_float16_agrees_loosely():
    config = small_model_config()
    model = noisy_model(config, Numerics(ms.float16))
    batch = some_batch("permuted")
    logits = model(*tensors(batch[:4]))
    assert logits.dtype == ms.float16
    expected = numpy_pangu.logits(weights_of(model.get_parameters()), reference_shape(config), *batch[:4])
    # float16 keeps 11 bits: logits of some units differ by some thousandths, more where terms cancel.
    differences = np.abs(logits.asnumpy().reshape(expected.shape) - expected)
    assert 1e-6 < differences.max() < 0.01 * np.abs(expected).max()
