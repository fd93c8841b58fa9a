"""Parameters by formula against the published totals."""

from __future__ import annotations

from collections import Counter

import pytest

from pangu_alpha.config import ModelConfig
from pangu_alpha.config_file import load_config
from pangu_alpha.model_table import model_parts, short_count, total_parameters


@pytest.mark.parametrize(
    ("name", "total", "short"),
    [
        ("350m", 345_368_576, "345.4M"),
        ("1.3b", 244_598_784, "244.6M"),
        ("2.6b", 2_625_295_360, "2.6253B"),
        ("13b", 12_800_870_400, "12.801B"),
        ("200b", 206_861_008_896, "206.86B"),
    ],
)
def test_published_sizes(repository, name, total, short):
    config = load_config(repository / "configs" / "models" / f"{name}.yaml").config.model
    assert total_parameters(config) == total
    assert short_count(total) == short
    hidden, layers = config.hidden_size, config.num_layers
    assert total == layers * (12 * hidden**2 + 13 * hidden) + (40000 + 2 * 1024) * hidden + 2 * hidden


def test_without_the_query_layer_only_its_table_is_gone():
    with_query, plain = ModelConfig(), ModelConfig(query_layer=False)
    assert total_parameters(with_query) - total_parameters(plain) == 1024 * 2560
    assert not any(part.group == "query layer" for part in model_parts(plain))


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1_000, "1.000K"), (13_907_712, "13.91M"), (10**12, "1000.0B")]
)
def test_short_counts(number, text):
    assert short_count(number) == text


@pytest.mark.parametrize("query_layer", [True, False])
def test_the_built_model_has_the_same_tensors(query_layer):
    from pangu_alpha.model.numerics import resolve_numerics
    from pangu_alpha.model.pangu_alpha import PanguAlphaModel
    from pangu_alpha.parallel.context import set_single_device_context

    config = ModelConfig(
        vocab_size=50, hidden_size=12, num_layers=3, num_heads=2, seq_length=8, query_layer=query_layer
    )
    model = PanguAlphaModel(config, resolve_numerics(config, set_single_device_context("cpu")))
    parts = Counter()
    for part in model_parts(config):
        parts[part.shape] += part.count
    assert Counter(parameter.shape for parameter in model.get_parameters()) == parts
