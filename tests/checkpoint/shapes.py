"""Names and shapes of a model's weights, written down from the model's own files, for tests that need no model."""

from __future__ import annotations

from pangu_alpha.config import ModelConfig


def parameter_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each weight by its name in checkpoints."""
    hidden, inner = model.hidden_size, model.feed_forward_size
    shapes: dict[str, tuple[int, ...]] = {
        "word_table": (model.vocab_size, hidden),
        "embedding.position_table": (model.seq_length, hidden),
        "final_norm.gamma": (hidden,),
        "final_norm.beta": (hidden,),
        "query_layer.query_table": (model.seq_length, hidden),
    }
    for block in [*(f"blocks.{number}" for number in range(model.num_blocks)), "query_layer.block"]:
        for part in ("query", "key", "value", "output"):
            shapes[f"{block}.attention.{part}.weight"] = (hidden, hidden)
            shapes[f"{block}.attention.{part}.bias"] = (hidden,)
        for norm in ("attention_norm", "feed_forward_norm"):
            shapes[f"{block}.{norm}.gamma"] = shapes[f"{block}.{norm}.beta"] = (hidden,)
        shapes[f"{block}.feed_forward.inner.weight"] = (hidden, inner)
        shapes[f"{block}.feed_forward.inner.bias"] = (inner,)
        shapes[f"{block}.feed_forward.output.weight"] = (inner, hidden)
        shapes[f"{block}.feed_forward.output.bias"] = (hidden,)
    return shapes
