"""The table of strategies: every operator of the model has a role in it, and roles are cut as published."""

from __future__ import annotations

import dataclasses

import pytest
from mindspore.ops.primitive import Primitive

from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.parallel.stages import lay_out
from pangu_alpha.parallel.strategies import Strategies, planned_redistributions, strategy_table

MODEL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, seq_length=16)
LAYOUT = Layout(data_parallel=4, model_parallel=2, pipeline_stages=2, optimizer_shards=4, micro_batches=4)
LEFT_TO_MINDSPORE = {"Reshape", "Tile"}
"""Operators without a strategy of their own: a reshape takes its neighbours', nothing is repeated on an accelerator."""
ON_A_SCALAR = {"Cast"}
"""Casts of constants by the activations."""


def sharded_network(layout: Layout = LAYOUT, numerics: Numerics | None = None, **changes: object) -> PanguAlphaLoss:
    config = dataclasses.replace(MODEL, **changes)
    numerics = numerics or Numerics(counter_dropout=False, fused_operators=True)
    return PanguAlphaLoss(PanguAlphaModel(config, numerics, Strategies(layout, config)), config.vocab_size)


def operators(network: PanguAlphaLoss) -> dict[str, Primitive]:
    """Every primitive that a cell holds, by the cell's name and its own."""
    return {
        f"{name}.{attribute}": value
        for name, cell in network.cells_and_names()
        for attribute, value in vars(cell).items()
        if isinstance(value, Primitive)
    }


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf", "fast_gelu"])
@pytest.mark.parametrize("counter", [False, True], ids=["framework dropout", "counter dropout"])
def test_no_operator_is_without_a_strategy(activation, counter):
    network = sharded_network(numerics=Numerics(counter_dropout=counter, fused_operators=True), activation=activation)
    found = operators(network)
    assert len(found) > 200
    bare = [name for name, value in found.items() if "in_strategy" not in value.attrs]
    bare = [name for name in bare if found[name].name not in LEFT_TO_MINDSPORE]
    assert [name for name in bare if not (name.endswith("activation.cast") and found[name].name in ON_A_SCALAR)] == []


def test_on_one_device_no_operator_has_a_strategy():
    network = PanguAlphaLoss(PanguAlphaModel(MODEL, Numerics(fused_operators=True)), MODEL.vocab_size)
    assert not any("in_strategy" in value.attrs for value in operators(network).values())


def test_the_published_strategies():
    # Official pangu_alpha.py, written as it stands there, with d and m; activations there have a batch axis more.
    d, m = 4, 2
    table = strategy_table(LAYOUT)
    published = {
        "position_gather": ((1, 1), (d, 1)),
        "norm": ((d, 1), (1,), (1,)),
        "transposed_column_matmul": ((d, 1), (m, 1)),
        "column_matmul": ((d, 1), (1, m)),
        "column_add_bias": ((d, m), (m,)),
        "row_matmul": ((d, m), (m, 1)),
        "row_add_bias": ((d, 1), (1,)),
        "split_heads": ((d, 1, m, 1),),
        "merge_heads": ((d, m, 1, 1),),
        "query_key": ((d, m, 1, 1), (d, m, 1, 1)),
        "weights_value": ((d, m, 1, 1), (d, m, 1, 1)),
        "attention_dropout": ((d, m, 1, 1),),
        "activation": ((d, m),),
        "residual_add": ((d, 1), (d, 1)),
        "hidden_dropout": ((d, 1),),
        "head_matmul": ((d, 1), (m, 1)),
        "loss_logits": ((d, m),),
        "loss_column": ((d, m), (d, 1)),
        "loss_one_hot": ((d, m), (), ()),
        "loss_pair": ((d, m), (d, m)),
        "mask_causal": ((d, 1, 1), (1, 1, 1)),
    }
    assert {role: table[role] for role in published} == published
    assert table["word_gather"] == ((m, 1), (d, 1))  # the official ((m, 1), (1, 1)) costs a redistribution


def test_a_whole_word_table_is_looked_up_and_multiplied_without_cuts():
    table = strategy_table(dataclasses.replace(LAYOUT, split_vocabulary=False))
    assert table["word_gather"] == ((1, 1), (4, 1))
    assert table["head_matmul"] == ((8, 1), (1, 1))
    assert table["loss_logits"] == ((8, 1),)


def test_split_norms_cut_the_tokens_over_all_devices_of_a_stage():
    network = sharded_network(dataclasses.replace(LAYOUT, split_norms=True))
    block = network.model.blocks[0]
    assert block.attention_norm.layer_norm.attrs["in_strategy"] == ((8, 1), (1,), (1,))
    assert block.attention.output.matmul.attrs["out_strategy"] == ((8, 1),)
    plain = sharded_network().model.blocks[0]
    assert "out_strategy" not in plain.attention.output.matmul.attrs


def test_search_leaves_all_but_products_and_tables_to_mindspore():
    strategies = Strategies(LAYOUT, MODEL, products_only=True)
    network = PanguAlphaLoss(
        PanguAlphaModel(MODEL, Numerics(fused_operators=True), strategies), MODEL.vocab_size
    )  # fmt: skip
    marked = {value.name for value in operators(network).values() if "in_strategy" in value.attrs}
    assert marked == {"MatMul", "Gather"}


def test_recomputation_keeps_what_the_official_code_keeps():
    layout = dataclasses.replace(LAYOUT, recompute="full")
    network = sharded_network(layout)
    lay_out(network, layout)
    for block in (network.model.blocks[1], network.model.query_layer.block):
        assert block.attention.get_scope() == block.feed_forward_norm.get_scope() == "recompute_"
        kept = [block.attention.dropout, block.attention_dropout, block.feed_forward_dropout]
        assert not any(dropout.framework_dropout.attrs["recompute"] for dropout in kept)
        assert not block.add_feed_forward.attrs["recompute"]
        assert block.attention.output.matmul.attrs["recompute_comm_op"] is False
        assert block.feed_forward.output.matmul.attrs["recompute_comm_op"] is False


def test_selective_recomputation_marks_the_operators_that_are_named():
    layout = dataclasses.replace(LAYOUT, recompute="selective", recompute_operators=("activation", "attention"))
    network = sharded_network(layout)
    lay_out(network, layout)
    for block in (network.model.blocks[0], network.model.query_layer.block):
        assert block.attention.softmax.attrs["recompute"]
        assert block.feed_forward.activation.get_scope() == "recompute_"
        assert block.feed_forward.inner.get_scope() != "recompute_"
        assert block.attention_norm.get_scope() != "recompute_"


def test_dropout_seeds_differ_where_elements_do_and_agree_where_they_are_the_same():
    ranks = [Strategies(LAYOUT, MODEL, rank) for rank in range(8)]
    hidden = [rank.dropout_seeds("hidden_dropout", 3) for rank in ranks]
    assert [hidden[rank] == hidden[rank + 1] for rank in range(0, 8, 2)] == [True] * 4  # model-parallel copies
    assert len(set(hidden)) == 4  # each part of the batch draws its own
    assert len({rank.dropout_seeds("attention_dropout", 3) for rank in ranks}) == 8  # heads are divided, too
    assert not {rank.dropout_seeds("hidden_dropout", 4) for rank in ranks} & set(hidden)
    assert all(seed > 0 for pair in hidden for seed in pair)  # 0 would let the framework choose


def test_every_redistribution_that_is_planned_has_a_reason():
    for layout in (Layout(2, 2), Layout(2, 2, split_vocabulary=False), Layout(2, 2, split_norms=True)):
        assert all(planned.reason for planned in planned_redistributions(layout))


def test_the_layout_of_a_config_reaches_the_table():
    config = Config(model=MODEL, parallel=ParallelConfig(data_parallel=2, model_parallel=4))
    assert strategy_table(layout_of(config))["query_key"] == ((2, 4, 1, 1), (2, 4, 1, 1))
