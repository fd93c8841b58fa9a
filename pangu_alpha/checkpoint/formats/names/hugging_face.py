"""The Hugging Face port (`modeling_gptpangu.py`): the query layer is the last of `transformer.h`."""

from __future__ import annotations

from pangu_alpha.checkpoint.formats.names.table import NameTable

HUGGING_FACE = NameTable(
    variant="Hugging Face port",
    whole={
        "word_table": "transformer.wte.weight",
        "embedding.position_table": "transformer.wpe.weight",
        "query_layer.query_table": "transformer.wqe.weight",
        "final_norm.gamma": "transformer.ln_f.weight",
        "final_norm.beta": "transformer.ln_f.bias",
    },
    layer={
        "attention_norm.gamma": "ln_1.weight",
        "attention_norm.beta": "ln_1.bias",
        "attention.query.weight": "attn.q_proj.weight",
        "attention.query.bias": "attn.q_proj.bias",
        "attention.key.weight": "attn.k_proj.weight",
        "attention.key.bias": "attn.k_proj.bias",
        "attention.value.weight": "attn.v_proj.weight",
        "attention.value.bias": "attn.v_proj.bias",
        "attention.output.weight": "attn.c_proj.weight",
        "attention.output.bias": "attn.c_proj.bias",
        "feed_forward_norm.gamma": "ln_2.weight",
        "feed_forward_norm.beta": "ln_2.bias",
        "feed_forward.inner.weight": "mlp.c_fc.weight",
        "feed_forward.inner.bias": "mlp.c_fc.bias",
        "feed_forward.output.weight": "mlp.c_proj.weight",
        "feed_forward.output.bias": "mlp.c_proj.bias",
    },
    block="transformer.h.{layer}.",
    query_layer="transformer.h.{layer}.",
    transposed=("attention.output.weight", "feed_forward.inner.weight", "feed_forward.output.weight"),
    ignored=r".*\.attn\.(bias|masked_bias)$",
    final_norm="before_query",
    aliases={"lm_head.weight": "transformer.wte.weight"},
)
