"""Initial values against the published table, by statistics, and as a pure function of seed and name."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from pangu_alpha.model.initial_values import fill_initial_values, initial_value
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.parallel.context import set_single_device_context
from tests.reference.small_model import small_model_config, weights_of

CONFIG = small_model_config(vocab_size=400, hidden_size=64, num_layers=3, seq_length=256)

# Of a normal distribution cut at two sigma, this share of the standard deviation is left.
CUT_AT_TWO = math.sqrt(1.0 - 4.0 * math.exp(-2.0) / math.sqrt(2.0 * math.pi) / math.erf(math.sqrt(2.0)))

PUBLISHED = {
    r"word_table": 0.02,
    r"embedding\.position_table": 0.02 * CUT_AT_TWO,
    r"query_layer\.query_table": 0.02 * CUT_AT_TWO,
    r".*\.attention\.(query|key|value)\.weight": 0.01,
    r".*\.attention\.output\.weight": 0.02 / math.sqrt(2 * 3),
    r".*\.feed_forward\.inner\.weight": 0.02,
    r".*\.feed_forward\.output\.weight": 0.02 / math.sqrt(2 * 3),
}


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    set_single_device_context("cpu")
    model = PanguAlphaModel(CONFIG, Numerics())
    fill_initial_values(model, CONFIG, seed=1)
    return weights_of(model.get_parameters())


def test_every_parameter_is_as_published(values):
    assert len(values) == 16 * 3 + 5
    found = set()
    for name, value in values.items():
        if name.endswith((".bias", ".beta")):
            assert not value.any(), name
        elif name.endswith(".gamma"):
            assert (value == 1.0).all(), name
        else:
            (pattern,) = (pattern for pattern in PUBLISHED if re.fullmatch(pattern, name))
            sigma = PUBLISHED[pattern]
            assert value.std() == pytest.approx(sigma, rel=5.0 / math.sqrt(2 * value.size)), name
            assert abs(value.mean()) < 5.0 * sigma / math.sqrt(value.size), name
            found.add(pattern)
    assert found == set(PUBLISHED)


def test_only_the_position_tables_are_cut_at_two_sigma(values):
    for name, value in values.items():
        if name.endswith(("position_table", "query_table")):
            assert 0.039 < np.abs(value).max() <= 0.04
        elif name.endswith(("weight", "word_table")):
            assert np.abs(value).max() > 3.0 * value.std()


def test_no_two_parameters_share_their_values(values):
    drawn = {name: value.reshape(-1)[:4096] for name, value in values.items() if value.std() > 0}
    names = list(drawn)
    for index, name in enumerate(names):
        for other in names[:index]:
            size = min(len(drawn[name]), len(drawn[other]))
            assert abs(np.corrcoef(drawn[name][:size], drawn[other][:size])[0, 1]) < 5.0 / math.sqrt(size), (
                name,
                other,
            )


def test_a_value_depends_on_seed_and_name_alone(values):
    # Alone, in any order, and in a model of other depth: the same numbers.
    name = "blocks.1.attention.query.weight"
    for config in (CONFIG, small_model_config(hidden_size=64, num_layers=5)):
        assert np.array_equal(initial_value(name, (64, 64), config, seed=1), values[name])
    scaled = initial_value("blocks.1.attention.output.weight", (64, 64), small_model_config(num_layers=12), seed=1)
    assert scaled * 2.0 == pytest.approx(values["blocks.1.attention.output.weight"], rel=1e-6)
    for other in (initial_value(name, (64, 64), CONFIG, seed=2), values["blocks.0.attention.query.weight"]):
        assert abs(np.corrcoef(other.reshape(-1), values[name].reshape(-1))[0, 1]) < 5.0 / 64.0


def test_narrow_models_may_begin_with_the_signal_of_the_large_one(values):
    scaled = dataclasses.replace(CONFIG, initial_values="width_scaled")
    factor = math.sqrt(2560 / 64)
    for name, value in values.items():
        found = initial_value(name, value.shape, scaled, seed=1)
        if name.endswith((".bias", ".beta", ".gamma")):
            assert np.array_equal(found, value), name
        else:  # nothing normalises the query table, so it begins with the strength of a normalised state
            expected = value / 0.02 if name.endswith("query_table") else value * factor
            assert found == pytest.approx(expected, rel=1e-5), name
    at_full_width = dataclasses.replace(scaled, hidden_size=2560, num_heads=2)
    assert initial_value("word_table", (4, 2560), at_full_width, 1).std() == pytest.approx(0.02, rel=0.05)


def test_the_position_table_of_the_200b_is_not_cut():
    shape = (CONFIG.seq_length, CONFIG.hidden_size)
    config = dataclasses.replace(CONFIG, final_norm="after_query")
    whole = initial_value("embedding.position_table", shape, config, seed=1)
    assert (np.abs(whole) > 0.04).mean() == pytest.approx(0.0455, abs=0.01)
    query_table = initial_value("query_layer.query_table", shape, config, seed=1)
    assert np.abs(query_table).max() <= 0.04
