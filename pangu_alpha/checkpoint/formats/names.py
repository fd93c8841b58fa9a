"""What the published weights are called, and what they are called here.

| ours | released (2.6B, 13B) | in a pipeline (200B) |
|---|---|---|
| word_table | backbone.word_embedding.embedding_table | embedding_table |
| embedding.position_table | backbone.position_embedding.embedding_table | …pangu_alpha_embedding.position_embedding.… |
| query_layer.query_table | backbone.top_query_embedding.embedding_table | same |
| blocks.N.… | backbone.blocks.N.… | backbone.blocks.N.… |
| query_layer.block.… | backbone.top_query_layer.… | backbone.blocks.(last).… |
| final_norm.… | backbone.layernorm.… | same |

Later code moved the tables: the word table to `embedding_table` or `backbone.embedding.word_embedding.…`, position and
query table to names that end alike; loaded from .npy files they are called word_embedding_table,
position_embedding_table, query_embedding_table.  Shapes and the orders of axes are the same everywhere: query, key and
value [out, in], the others [in, out] (official `pangu_alpha.py`; confirmed by running it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pangu_alpha.errors import PanguError

TABLE_FILES = {
    "word_embedding": "word_table",
    "position_embedding": "embedding.position_table",
    "top_query_embedding": "query_layer.query_table",
}
"""The three tables that the release has as .npy files, by the middle of their names."""

_TABLES = [
    (
        re.compile(r"(.*top_query_embedding(\.embedding_table|_table)?|query_embedding_table)"),
        "query_layer.query_table",
    ),
    (re.compile(r"(.*position_embedding(\.embedding_table|_table)?)"), "embedding.position_table"),
    (re.compile(r"(.*word_embedding(\.embedding_table|_table)?|embedding_table)"), "word_table"),
]
_PARTS = {
    "layernorm1": "attention_norm",
    "layernorm2": "feed_forward_norm",
    "attention.dense1": "attention.query",
    "attention.dense2": "attention.key",
    "attention.dense3": "attention.value",
    "attention.projection": "attention.output",
    "output.mapping": "feed_forward.inner",
    "output.projection": "feed_forward.output",
}
_PART = re.compile(
    r"(layernorm[12]|attention\.(?:dense[123]|projection)|output\.(?:mapping|projection))\.(weight|bias|gamma|beta)"
)
_NOT_WEIGHTS = re.compile(
    r"^(adam_[mv]\.|accu_grads\.|accu_grad\.)|^(loss_scale|scale_sense|global_step|epoch_num|step_num|learning_rate|beta1_power|beta2_power|current_iterator_step|last_overflow_iterator_step)$"
)


def is_weight(published: str) -> bool:
    """Whether a name is a weight's, and not that of a moment, counter or scale."""
    return _NOT_WEIGHTS.search(published) is None


def our_name(published: str) -> str | None:
    """Our name of a published one; None for a name that nobody knows.  A pipeline's last block stays a block."""
    for pattern, ours in _TABLES:
        if pattern.fullmatch(published):
            return ours
    match = re.fullmatch(r"(?:backbone\.)?(layernorm|final_layernorm)\.(gamma|beta)", published)
    if match:
        return f"final_norm.{match[2]}"
    match = re.fullmatch(r"(?:backbone\.)?(top_query_layer|blocks\.\d+)\.(.*)", published)
    part = _PART.fullmatch(match[2]) if match else None
    if match is None or part is None:
        return None
    block = "query_layer.block" if match[1] == "top_query_layer" else match[1]
    return f"{block}.{_PARTS[part[1]]}.{part[2]}"


def name_map(published: Iterable[str], place: str) -> dict[str, str]:
    """Published name -> ours, of all weights of one checkpoint; a pipeline's last block becomes the query layer.

    Args:
        published: all names, those of moments and counters included, which are left out.
        place: where they come from, for messages.

    Raises:
        PanguError: a name that nobody knows, or two for one tensor.
    """
    names: dict[str, str] = {}
    for name in published:
        if not is_weight(name):
            continue
        ours = our_name(name)
        if ours is None:
            raise PanguError(f"{place}: tensor {name} is none of PanGu-α's; is this another model's checkpoint?")
        names[name] = ours
    if not any(ours.startswith("query_layer.block.") for ours in names.values()):
        blocks = [int(ours.split(".")[1]) for ours in names.values() if ours.startswith("blocks.")]
        last = f"blocks.{max(blocks, default=0)}."
        names = {
            name: "query_layer.block." + ours.removeprefix(last) if ours.startswith(last) else ours
            for name, ours in names.items()
        }
    seen: dict[str, str] = {}
    for name, ours in names.items():
        if ours in seen:
            raise PanguError(f"{place}: two tensors are {ours}: {seen[ours]} and {name}")
        seen[ours] = name
    return names
