"""Settings of a PanGu-α for transformers."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class GPTPanguConfig(PretrainedConfig):
    """What `config.json` holds.

    Args:
        vocab_size: rows of the word table.
        max_position_embeddings: tokens of a sample.
        hidden_size: width.
        num_layers: layers, the query layer among them.
        num_heads: attention heads.
        intermediate_size: width inside the feed-forward part.
        layer_norm_epsilon: of all norms.
        activation_function: gelu_new (the tanh form, with which the released weights were trained), gelu (erf) or
            fast_gelu (x sigmoid(1.702 x)).
        final_norm: before_query (2.6B, 13B) or after_query (200B).
    """

    model_type = "gpt_pangu"
    attribute_map = {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size: int = 40000,
        max_position_embeddings: int = 1024,
        hidden_size: int = 2560,
        num_layers: int = 32,
        num_heads: int = 32,
        intermediate_size: int | None = None,
        layer_norm_epsilon: float = 1e-5,
        activation_function: str = "gelu_new",
        final_norm: str = "before_query",
        **more: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.intermediate_size = intermediate_size or 4 * hidden_size
        self.layer_norm_epsilon = layer_norm_epsilon
        self.activation_function = activation_function
        self.final_norm = final_norm
        more.setdefault("bos_token_id", 9)
        more.setdefault("eos_token_id", 9)  # <eot>, which ends each document
        more.setdefault("pad_token_id", 6)
        super().__init__(**more)
