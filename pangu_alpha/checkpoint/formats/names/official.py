"""The original release, 2.6B and 13B (`pangu_alpha.py`, class PANGUALPHA_Model; the strategy files)."""

from __future__ import annotations

from pangu_alpha.checkpoint.formats.names.table import NameTable

LAYER = {
    "attention_norm.gamma": "layernorm1.gamma",
    "attention_norm.beta": "layernorm1.beta",
    "attention.query.weight": "attention.dense1.weight",
    "attention.query.bias": "attention.dense1.bias",
    "attention.key.weight": "attention.dense2.weight",
    "attention.key.bias": "attention.dense2.bias",
    "attention.value.weight": "attention.dense3.weight",
    "attention.value.bias": "attention.dense3.bias",
    "attention.output.weight": "attention.projection.weight",
    "attention.output.bias": "attention.projection.bias",
    "feed_forward_norm.gamma": "layernorm2.gamma",
    "feed_forward_norm.beta": "layernorm2.beta",
    "feed_forward.inner.weight": "output.mapping.weight",
    "feed_forward.inner.bias": "output.mapping.bias",
    "feed_forward.output.weight": "output.projection.weight",
    "feed_forward.output.bias": "output.projection.bias",
}
"""One layer; all MindSpore variants share it, and keep each weight the way round that we do."""

NO_WEIGHTS = (
    r"(adam_[mv]|accu_grads|moment[12])\.|(loss_scale|scale_sense|global_step|learning_rate|epoch_num|step_num|"
    r"beta[12]_power|current_iterator_step|last_overflow_iterator_step|append_info)$"
)
"""What MindSpore's training leaves in a checkpoint beside the weights."""

OFFICIAL = NameTable(
    variant="original release",
    whole={
        "word_table": "backbone.word_embedding.embedding_table",
        "embedding.position_table": "backbone.position_embedding.embedding_table",
        "query_layer.query_table": "backbone.top_query_embedding.embedding_table",
        "final_norm.gamma": "backbone.layernorm.gamma",
        "final_norm.beta": "backbone.layernorm.beta",
    },
    layer=LAYER,
    block="backbone.blocks.{layer}.",
    query_layer="backbone.top_query_layer.",
    ignored=NO_WEIGHTS,
    final_norm="before_query",
)
