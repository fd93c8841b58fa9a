"""MindSpore's models repository and MindFormers: names of their own for the three tables, both places of the norm."""

from __future__ import annotations

import dataclasses

from pangu_alpha.checkpoint.formats.names.official import LAYER, NO_WEIGHTS
from pangu_alpha.checkpoint.formats.names.table import NameTable

MINDFORMERS = NameTable(
    variant="MindSpore models and MindFormers",
    whole={
        "word_table": "backbone.embedding.word_embedding.embedding_table",
        "embedding.position_table": "backbone.embedding.position_embedding.embedding_table",
        "query_layer.query_table": "backbone.top_query_embedding.embedding_table",
        "final_norm.gamma": "backbone.layernorm.gamma",
        "final_norm.beta": "backbone.layernorm.beta",
    },
    layer=LAYER,
    block="backbone.blocks.{layer}.",
    query_layer="backbone.top_query_layer.",
    ignored=NO_WEIGHTS,
)

MINDFORMERS_FROM_NPY = dataclasses.replace(
    MINDFORMERS,
    variant="MindSpore models and MindFormers, tables from .npy",
    whole={
        **MINDFORMERS.whole,
        "word_table": "word_embedding_table",
        "embedding.position_table": "position_embedding_table",
        "query_layer.query_table": "query_embedding_table",
    },
)
"""The same code after it has read the three tables from .npy files, which then have other names."""
