"""The one table to read: how each operator of the model is cut, by its role, under a layout.

A strategy has one tuple an input, one number an axis: the parts which that axis is cut into.
"""

# d = data parallel, m = model parallel.  A hidden state is [tokens, H]; heads are [batch, heads, seq, head size].

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pangu_alpha.config import ModelConfig
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.stages import stages_of_layers

Strategy = tuple[tuple[int, ...], ...]


def strategy_table(layout: Layout) -> dict[str, Strategy]:
    """Role of an operator -> its strategy under `layout`.

    As in the official code, but for these:

    - word gather: the official ((m, 1), (1, 1)) costs a redistribution of every micro batch; the tokens are cut over
      d as well, and one AllReduce over the model-parallel devices is all that is left;
    - a whole word table on each device (`split_vocabulary: false`): official head and loss compute ((d, 1), (1, 1)) and
      then cut the logits over m; here head and loss take different tokens on each of the d * m devices, which needs
      no cut of logits forth and back and as little memory;
    - softmax keeps its four axes, as no operator asks for three any more.
    """
    d, m = layout.data_parallel, layout.model_parallel
    rows: Strategy = ((d, 1),)  # [tokens, H], the same on all model-parallel devices
    columns: Strategy = ((d, m),)  # [tokens, 4H] or [tokens, V], its columns divided
    heads: Strategy = ((d, m, 1, 1),)  # [batch, heads, seq, head size or seq]
    norm = d * m if layout.split_norms else d  # parts of the tokens in norms and residuals
    table: dict[str, Strategy] = {
        # embedding: [batch, seq] ids, [rows, H] tables
        "word_gather": ((m if layout.split_vocabulary else 1, 1), (d, 1)),
        "position_gather": ((1, 1), (d, 1)),
        "embedding_add": ((d, 1, 1), (d, 1, 1)),
        "embedding_cast": rows,
        "query_gather": ((1, 1), (d, 1)),
        "query_cast": rows,
        # mask: [batch, seq] segments -> [batch, 1, seq, seq]
        "mask_expand": ((d, 1),),
        "mask_equal": ((d, 1, 1), (d, 1, 1)),
        "mask_cast": ((d, 1, 1),),
        "mask_causal": ((d, 1, 1), (1, 1, 1)),
        "mask_expand_heads": ((d, 1, 1),),
        "mask_subtract": ((), (d, 1, 1, 1)),
        "mask_scale": ((d, 1, 1, 1), ()),
        "mask_scores_cast": ((d, 1, 1, 1),),
        # norm
        "norm_cast": ((norm, 1),),
        "norm": ((norm, 1), (1,), (1,)),
        # query, key, value: weight [out, in], its rows divided
        "transposed_column_weight": ((m, 1),),
        "transposed_column_matmul": ((d, 1), (m, 1)),
        # inner product of the feed-forward part: weight [in, out], its columns divided
        "column_weight": ((1, m),),
        "column_matmul": ((d, 1), (1, m)),
        "column_bias": ((m,),),
        "column_add_bias": ((d, m), (m,)),
        # output products: weight [in, out], its rows divided, so that the parts are summed over the devices
        "row_weight": ((m, 1),),
        "row_matmul": ((d, m), (m, 1)),
        "row_bias": ((1,),),
        "row_add_bias": ((norm, 1), (1,)),
        # attention
        "split_heads": ((d, 1, m, 1),),
        "merge_heads": heads,
        "scale_query": ((d, m, 1, 1), ()),
        "query_key": ((d, m, 1, 1), (d, m, 1, 1)),
        "scores_cast": heads,
        "add_mask": ((d, m, 1, 1), (d, 1, 1, 1)),
        "softmax": heads,
        "weights_value": ((d, m, 1, 1), (d, m, 1, 1)),
        # feed-forward, residual
        "activation": columns,
        "activation_pair": (*columns, *columns),
        "activation_scalar": (*columns, ()),
        "residual_add": ((norm, 1), (norm, 1)),
    }
    table |= _head_and_loss(layout)
    for role, cut in {"embedding_dropout": rows, "attention_dropout": heads, "hidden_dropout": ((norm, 1),)}.items():
        table |= _with_masks(role, cut)
    return table | {"vector": ((1,),), "vector_pair": ((1,), (1,)), "vector_scalar": ((1,), ())}


def _with_masks(role: str, cut: Strategy) -> dict[str, Strategy]:
    """Dropout, and what computes its masks by counter: on the dropped tensor, with another, a row, a number."""
    return {
        role: cut,
        f"{role}_pair": (*cut, *cut),
        f"{role}_vector": (*cut, (1,)),
        f"{role}_scalar": (*cut, ()),
    }


def _head_and_loss(layout: Layout) -> dict[str, Strategy]:
    """Logits [tokens, V]: tokens over d and columns over m, or with a whole table on each device tokens over d * m."""
    d, m = layout.data_parallel, layout.model_parallel
    if not layout.split_vocabulary:
        d, m = d * m, 1
    return {
        "head_weight": ((m, 1),),
        "head_matmul": ((d, 1), (m, 1)),
        "loss_logits": ((d, m),),
        "loss_pair": ((d, m), (d, m)),
        "loss_column": ((d, m), (d, 1)),
        "loss_row": ((d, 1),),
        "loss_one_hot": ((d, m), (), ()),
        "loss_tokens": ((d,),),
        "loss_tokens_pair": ((d,), (d,)),
        "loss_tokens_scalar": ((d,), ()),
        "loss_scalars": ((), ()),
    }


@dataclass(frozen=True)
class PlannedRedistribution:
    """Communication or slicing that a strategy asks for on purpose, where two operators cut one tensor differently."""

    scope: str
    """Regular expression that the scope name of the operator must match."""
    reason: str
    """Why."""
    communicates: bool = True
    """Whether it may move data between ranks; False: each rank only cuts what it has."""


def planned_redistributions(layout: Layout) -> tuple[PlannedRedistribution, ...]:
    """What the strategies redistribute on purpose; everything else that a graph redistributes is a mistake."""
    inputs = r"(embedding|masks|loss|query_layer)\b"
    planned = [PlannedRedistribution(inputs, "whole batch on each rank, cut over d", communicates=False)]
    if layout.split_vocabulary and layout.model_parallel > 1 and layout.data_parallel == 1:
        summed = "with one data-parallel rank MindSpore sums looked up rows by ReduceScatter and AllGather, as costly"
        planned.append(PlannedRedistribution(r"\bembedding\b", summed))
    if not layout.split_vocabulary and layout.model_parallel > 1:
        planned.append(PlannedRedistribution(r"\b(head|loss)\b", "head and loss take tokens over d * m"))
    if layout.split_norms and layout.model_parallel > 1:
        planned.append(PlannedRedistribution(r"\b(blocks|query_layer|final_norm|embedding)\b", "norms over d * m"))
    return tuple(planned)


class Strategies:
    """The sharding of a model under `layout`, as one rank sees it."""

    active = True
    data_part = 0  # every rank is given whole batches, which the strategies cut

    def __init__(
        self, layout: Layout, model: ModelConfig, rank: int = 0, seed: int = 1, products_only: bool = False
    ) -> None:
        self.layout, self.rank, self.seed, self.products_only = layout, rank, seed, products_only
        self.table = strategy_table(layout)
        self._stages = stages_of_layers(model, layout)

    @cached_property
    def stages(self) -> int:
        """Pipeline stages."""
        return self.layout.pipeline_stages

    def sum_over_data_parallel(self) -> Any:
        """None: MindSpore sums where a strategy asks for it."""
        return None

    def shard(self, operator: Any, role: str) -> Any:
        """`operator` with the strategy of its role; with `products_only` the others are left to MindSpore's search."""
        if self.products_only and not role.endswith(("matmul", "gather")):
            return operator
        if role == "row_matmul" and self.layout.split_norms:
            return operator.shard(self.table[role], ((self.layout.devices_per_stage, 1),))
        return operator.shard(self.table[role])

    def stage_of_layer(self, layer: int) -> int:
        """The pipeline stage of a layer."""
        return self._stages[layer]

    def dropout_seeds(self, role: str, site: int) -> tuple[int, int]:
        """Seeds that differ between ranks with different elements and agree between those with the same.

        Left to itself the framework gives all ranks of a stage the same seeds wherever a tensor is the same on some of
        them, so that data-parallel ranks would drop the same elements of different samples.
        """
        parts = [self.layout.data_index(self.rank)]
        cut_over_model = self.table[role][0] in ((self.layout.data_parallel, self.layout.model_parallel, 1, 1),)
        if cut_over_model or (self.layout.split_norms and role == "hidden_dropout"):
            parts.append(self.layout.model_index(self.rank))
        key = f"{self.seed}:{site}:{':'.join(map(str, parts))}".encode()
        return zlib.crc32(key) % (2**31 - 1) + 1, zlib.crc32(key[::-1]) % (2**31 - 1) + 1
