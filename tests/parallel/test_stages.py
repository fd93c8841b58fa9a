"""Stages: as published, or balanced; what recomputation and optimizer sharding leave out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.config import ModelConfig
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.stages import is_optimizer_divided, stages_of_layers, stages_of_parameter


def model(layers: int, vocab_size: int = 40000, hidden_size: int = 2560) -> ModelConfig:
    return ModelConfig(vocab_size=vocab_size, hidden_size=hidden_size, num_layers=layers, num_heads=32)


def test_the_published_200b_has_four_layers_a_stage():
    stages = stages_of_layers(model(64), Layout(pipeline_stages=16))
    assert stages == tuple(layer // 4 for layer in range(64))


def test_the_published_rule_where_it_does_not_come_out_even():
    assert stages_of_layers(model(7), Layout(pipeline_stages=3)) == (0, 0, 0, 1, 1, 2, 2)


def cost_of_worst_stage(config: ModelConfig, stages: tuple[int, ...]) -> float:
    head = config.vocab_size / (12 * config.hidden_size + 2 * config.seq_length)
    costs = [1.0] * (config.num_layers - 1) + [1.0 + head]
    return max(sum(cost for cost, s in zip(costs, stages, strict=True) if s == stage) for stage in set(stages))


@given(st.integers(2, 9), st.integers(1, 5), st.sampled_from([64, 40000, 400_000]))
def test_balanced_stages_are_the_best_of_all(layers, parts, vocab_size):
    if parts > layers:
        return
    config = model(layers, vocab_size)
    found = stages_of_layers(config, Layout(pipeline_stages=parts, balanced_stages=True))
    assert list(found) == sorted(found)
    assert set(found) == set(range(parts))
    best = min(
        cost_of_worst_stage(config, tuple(sum(layer >= cut for cut in cuts) for layer in range(layers)))
        for cuts in itertools.combinations(range(1, layers), parts - 1)
    )
    assert cost_of_worst_stage(config, found) == pytest.approx(best)


def test_the_word_table_is_on_the_first_and_the_last_stage():
    layout = Layout(pipeline_stages=4)
    places = {
        "word_table": (0, 3), "embedding.position_table": (0,), "blocks.0.attention.query.weight": (0,),
        "blocks.5.feed_forward.inner.bias": (2,), "query_layer.query_table": (3,), "final_norm.gamma": (3,),
        "query_layer.block.attention.key.bias": (3,),
    }  # fmt: skip
    for name, stages in places.items():
        assert stages_of_parameter(name, model(8), layout) == stages, name
    assert stages_of_parameter("word_table", model(8), Layout()) == (0,)


def test_optimizer_sharding_leaves_out_what_the_official_code_does():
    flat, piped = Layout(data_parallel=4, optimizer_shards=4), Layout(4, pipeline_stages=2, optimizer_shards=4)
    divided = ["blocks.0.attention.query.weight", "blocks.0.attention.key.bias", "blocks.0.feed_forward.output.weight"]
    whole = ["blocks.0.attention_norm.gamma", "final_norm.beta", "embedding.position_table", "query_layer.query_table"]
    whole += ["blocks.0.attention.output.bias", "blocks.0.feed_forward.output.bias"]
    for layout in (flat, piped):
        assert all(is_optimizer_divided(name, layout) for name in divided)
        assert not any(is_optimizer_divided(name, layout) for name in whole)
    assert not is_optimizer_divided("word_table", flat)
    assert is_optimizer_divided("word_table", piped)  # MindSpore cannot compile it otherwise
    assert not any(is_optimizer_divided(name, Layout(data_parallel=4)) for name in divided)
