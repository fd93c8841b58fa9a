"""Cached and uncached answers agree at every step, in every order, for every form of the model."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.config import Config
from pangu_alpha.data.tokenizer import Tokenizer
from pangu_alpha.inference.cache import CachedDecoder, FullDecoder
from pangu_alpha.model.numerics import resolve_numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel

FORMS = {
    "query layer, norm before": {},
    "query layer, norm after": {"final_norm": "after_query"},
    "no query layer": {"query_layer": False},
}


@pytest.fixture(scope="module", params=list(FORMS))
def form(request: pytest.FixtureRequest, tokenizer: Tokenizer, tiny) -> tuple[Config, PanguAlphaModel, CachedDecoder]:
    config = tiny.config(tokenizer, **FORMS[request.param])
    model = tiny.model(config)
    return config, model, CachedDecoder(model, config.model, resolve_numerics(config.model, "cpu"))


def one_forward(model: PanguAlphaModel, tokens, positions, query_positions) -> np.ndarray:
    """Logits [S, V] of every step at once."""
    arrays = [np.asarray(a, np.int32)[None] for a in (tokens, positions, query_positions, np.zeros(len(tokens)))]
    return model(*(Tensor(array) for array in arrays)).asnumpy()


@pytest.mark.parametrize("order", ["sequential", "permuted"])
def test_cached_equals_one_forward(form, order: str) -> None:
    config, model, decoder = form
    size = config.model.seq_length
    generator = np.random.default_rng(5)
    tokens = generator.integers(0, config.model.vocab_size, size).tolist()
    positions = np.arange(size)
    asked = positions
    if order == "permuted":
        positions = generator.permutation(size)
        asked = np.maximum(np.roll(positions, -1) - 1, 0)
    expected = one_forward(model, tokens, positions, asked)
    decoder.rewind(0)
    for step in range(size):
        logits = decoder.feed([tokens[step]], [int(positions[step])], int(asked[step]))
        np.testing.assert_allclose(logits, expected[step], atol=1e-4)
    assert np.abs(expected).max() > 1.0  # the comparison has something to compare


def test_any_split_into_calls_is_the_same(form) -> None:
    config, model, decoder = form
    size = config.model.seq_length
    generator = np.random.default_rng(6)
    tokens = generator.integers(0, config.model.vocab_size, size).tolist()
    positions = generator.permutation(size).tolist()
    asked = generator.integers(0, size, size).tolist()
    expected = one_forward(model, tokens, positions, asked)
    for lengths in ([32], [5, 27], [20, 3, 9], [31, 1], [17, 15]):
        decoder.rewind(0)
        end = 0
        for length in lengths:
            start, end = end, end + length
            logits = decoder.feed(tokens[start:end], positions[start:end], asked[end - 1])
            np.testing.assert_allclose(logits, expected[end - 1], atol=1e-4)


def test_rewind_forgets(form) -> None:
    config, model, decoder = form
    full = FullDecoder(model, config.model)
    decoder.rewind(0)
    for one in (decoder, full):
        one.feed(list(range(20, 40)), list(range(20)), 19)
        one.rewind(7)
        assert one.length == 7
    cached, uncached = (one.feed([3, 4], [9, 8], 9) for one in (decoder, full))
    np.testing.assert_allclose(cached, uncached, atol=1e-4)
    assert decoder.length == full.length == 9


def test_query_position_decides_what_is_asked(form) -> None:
    config, _, decoder = form
    decoder.rewind(0)
    first = decoder.feed([20, 21, 22], [0, 1, 2], 2)
    decoder.rewind(2)
    other = decoder.feed([22], [2], 7)
    assert (np.abs(first - other).max() > 1e-2) == config.model.query_layer


def test_wrong_use_is_refused(form) -> None:
    config, _, decoder = form
    decoder.rewind(0)
    with pytest.raises(ValueError, match="positions"):
        decoder.feed([1, 2], [0], 0)
    with pytest.raises(ValueError, match="capacity"):
        decoder.feed([20] * 33, list(range(33)), 0)
    with pytest.raises(ValueError, match="go back"):
        decoder.rewind(1)
