"""The code for MindSpore 1.3, in the official SDK pcl-pangu: both places of the final norm, one set of names."""

from __future__ import annotations

from pangu_alpha.checkpoint.formats.names.official import LAYER, NO_WEIGHTS
from pangu_alpha.checkpoint.formats.names.table import NameTable

RELEASE_1_3 = NameTable(
    variant="MindSpore 1.3 code",
    whole={
        "word_table": "embedding_table",
        "embedding.position_table": "backbone.embedding.embedding.position_embedding.embedding_table",
        "query_layer.query_table": "backbone.top_query_embedding_table",
        "final_norm.gamma": "backbone.layernorm.gamma",
        "final_norm.beta": "backbone.layernorm.beta",
    },
    layer=LAYER,
    block="backbone.blocks.{layer}.",
    query_layer="backbone.top_query_layer.",
    ignored=NO_WEIGHTS,
)
