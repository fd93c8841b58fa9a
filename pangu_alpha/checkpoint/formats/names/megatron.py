"""The Megatron port (PanGu-Alpha-GPU, `change_MspCkpt_ToMgt.py`); dots stand for its nested dictionaries."""

from __future__ import annotations

from pangu_alpha.checkpoint.formats.names.table import NameTable

MEGATRON = NameTable(
    variant="Megatron port",
    whole={
        "word_table": "embedding.word_embeddings.weight",
        "embedding.position_table": "embedding.position_embeddings.weight",
        "query_layer.query_table": "topQueryEmbedding.top_query_embeddings.weight",
        "final_norm.gamma": "transformer.final_layernorm.weight",
        "final_norm.beta": "transformer.final_layernorm.bias",
    },
    layer={
        "attention_norm.gamma": "input_layernorm.weight",
        "attention_norm.beta": "input_layernorm.bias",
        "attention.query.weight": "attention.query.weight",
        "attention.query.bias": "attention.query.bias",
        "attention.key.weight": "attention.key.weight",
        "attention.key.bias": "attention.key.bias",
        "attention.value.weight": "attention.value.weight",
        "attention.value.bias": "attention.value.bias",
        "attention.output.weight": "attention.dense.weight",
        "attention.output.bias": "attention.dense.bias",
        "feed_forward_norm.gamma": "post_attention_layernorm.weight",
        "feed_forward_norm.beta": "post_attention_layernorm.bias",
        "feed_forward.inner.weight": "mlp.dense_h_to_4h.weight",
        "feed_forward.inner.bias": "mlp.dense_h_to_4h.bias",
        "feed_forward.output.weight": "mlp.dense_4h_to_h.weight",
        "feed_forward.output.bias": "mlp.dense_4h_to_h.bias",
    },
    block="transformer.layers.{layer}.",
    query_layer="transformer.topQueryLayer.",
    transposed=("attention.output.weight", "feed_forward.inner.weight", "feed_forward.output.weight"),
    final_norm="before_query",
)
