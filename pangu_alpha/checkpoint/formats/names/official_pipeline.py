"""The original release's pipeline code, 200B (class PANGUALPHA_ModelPipeline): the query layer is the last block."""

from __future__ import annotations

from pangu_alpha.checkpoint.formats.names.official import LAYER, NO_WEIGHTS
from pangu_alpha.checkpoint.formats.names.table import NameTable

OFFICIAL_PIPELINE = NameTable(
    variant="original release, pipeline",
    whole={
        "word_table": "embedding_table",
        "embedding.position_table": "backbone.pangu_alpha_embedding.position_embedding.embedding_table",
        "query_layer.query_table": "backbone.top_query_embedding.embedding_table",
        "final_norm.gamma": "backbone.layernorm.gamma",
        "final_norm.beta": "backbone.layernorm.beta",
    },
    layer=LAYER,
    block="backbone.blocks.{layer}.",
    query_layer="backbone.blocks.{layer}.",
    ignored=NO_WEIGHTS,
    final_norm="after_query",
)
