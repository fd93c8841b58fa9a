"""Published names, in all the ways in which they were published."""

from __future__ import annotations

import pytest
from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

from pangu_alpha.checkpoint.formats.names import name_map, our_name
from pangu_alpha.config import ModelConfig
from pangu_alpha.errors import PanguError
from tests.checkpoint.shapes import parameter_shapes


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("backbone.word_embedding.embedding_table", "word_table"),
        ("embedding_table", "word_table"),
        ("backbone.embedding.word_embedding.embedding_table", "word_table"),
        ("word_embedding_table", "word_table"),
        ("backbone.position_embedding.embedding_table", "embedding.position_table"),
        ("backbone.pangu_alpha_embedding.position_embedding.embedding_table", "embedding.position_table"),
        ("position_embedding_table", "embedding.position_table"),
        ("backbone.top_query_embedding.embedding_table", "query_layer.query_table"),
        ("backbone.top_query_embedding_table", "query_layer.query_table"),
        ("query_embedding_table", "query_layer.query_table"),
        ("backbone.layernorm.gamma", "final_norm.gamma"),
        ("backbone.blocks.7.attention.dense1.weight", "blocks.7.attention.query.weight"),
        ("backbone.blocks.7.output.mapping.bias", "blocks.7.feed_forward.inner.bias"),
        ("backbone.top_query_layer.layernorm2.beta", "query_layer.block.feed_forward_norm.beta"),
        ("backbone.blocks.7.attention.dense4.weight", None),
        ("transformer.h.0.attn.weight", None),
    ],
)
def test_single_names(published: str, ours: str | None) -> None:
    assert our_name(published) == ours


def test_a_pipelines_last_block_is_the_query_layer() -> None:
    blocks = [f"backbone.blocks.{number}.layernorm1.gamma" for number in range(3)]
    names = name_map(
        ["embedding_table", *blocks, "adam_m.embedding_table", "accu_grads.embedding_table", "loss_scale"], "here"
    )
    assert list(names.values()) == [
        "word_table", "blocks.0.attention_norm.gamma", "blocks.1.attention_norm.gamma",
        "query_layer.block.attention_norm.gamma",
    ]  # fmt: skip


def test_names_that_cannot_be() -> None:
    with pytest.raises(PanguError, match="here: tensor h.0.w is none of PanGu-α's"):
        name_map(["h.0.w"], "here")
    with pytest.raises(PanguError, match="here: two tensors are word_table: embedding_table and word_embedding_table"):
        name_map(["embedding_table", "word_embedding_table", "backbone.top_query_layer.layernorm1.beta"], "here")


@pytest.mark.parametrize(
    ("file", "layers"), [("pangu_alpha_2.6B_ckpt_strategy.ckpt", 32), ("pangu_alpha_13B_cktp_strategy.ckpt", 40)]
)
def test_every_name_of_the_official_strategy_files(shared_data, file: str, layers: int) -> None:
    strategy = ParallelStrategyMap()
    strategy.ParseFromString((shared_data / "official" / file).read_bytes())
    names = name_map([item.param_name for item in strategy.parallel_layout_item], file)
    model = ModelConfig(vocab_size=64, hidden_size=64, num_layers=layers, num_heads=4, seq_length=16)
    assert set(names.values()) == set(parameter_shapes(model)) and len(names) == 16 * layers + 5
