"""Causal multi-head attention, paper equation 2, divided by the root of the head size as the official code does."""

# B = batch, S = seq, H = hidden, N = heads, D = head size; a hidden state is [B*S, H], one row a token.

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.dropout import Dropout
from pangu_alpha.model.linear import Linear
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.operators import Softmax, WeightedValues
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class Attention(nn.Cell):
    """`softmax(Q K^T / sqrt(D) + mask) V`, heads merged and projected.

    The query may come from another place than key and value: the query layer asks with its own table.
    Products are in the compute type, scores and softmax in float32, or with `softmax_dtype` in float16.
    """

    def __init__(self, config: ModelConfig, numerics: Numerics, site: int, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        hidden, self.num_heads, self.head_size = config.hidden_size, config.num_heads, config.head_size
        self.query = Linear(hidden, hidden, numerics, "transposed_column", sharding)
        self.key = Linear(hidden, hidden, numerics, "transposed_column", sharding)
        self.value = Linear(hidden, hidden, numerics, "transposed_column", sharding)
        self.output = Linear(hidden, hidden, numerics, "row", sharding)
        self.dropout = Dropout(config.dropout, site, numerics, "attention_dropout", sharding)
        self.scale_query = sharding.shard(ops.Mul(), "scale_query")
        self.query_key = sharding.shard(ops.BatchMatMul(transpose_b=True), "query_key")
        self.cast_scores = sharding.shard(ops.Cast(), "scores_cast")
        self.softmax_dtype = ms.float16 if config.softmax_dtype == "float16" else ms.float32
        self.half_softmax = config.softmax_dtype == "float16"
        self.cast_mask = sharding.shard(ops.Cast(), "mask_scores_cast")
        self.add_mask = sharding.shard(ops.Add(), "add_mask")
        fused = sharding.shard(ops.Softmax(axis=-1), "softmax")
        self.softmax = fused if numerics.fused_operators else Softmax()
        self.joined = numerics.joined_cells and not self.half_softmax
        if self.joined:
            self.weighted_values = WeightedValues()
        self.cast_weights = sharding.shard(ops.Cast(), "scores_cast")
        self.weights_value = sharding.shard(ops.BatchMatMul(), "weights_value")
        self.reshape = ops.Reshape()
        self.to_heads = sharding.shard(ops.Transpose(), "split_heads")
        self.from_heads = sharding.shard(ops.Transpose(), "merge_heads")
        self.scale = Tensor(1.0 / math.sqrt(config.head_size), numerics.compute_dtype)
        self.compute_dtype = numerics.compute_dtype

    def split_heads(self, hidden: Tensor, batch: int) -> Tensor:
        """[B*S, H] -> [B, N, S, D]."""
        return self.to_heads(self.reshape(hidden, (batch, -1, self.num_heads, self.head_size)), (0, 2, 1, 3))

    def merge_heads(self, heads: Tensor) -> Tensor:
        """[B, N, S, D] -> [B*S, H]."""
        return self.reshape(self.from_heads(heads, (0, 2, 1, 3)), (-1, self.num_heads * self.head_size))

    def scores(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """[B, N, S, D], [B, N, T, D], additive mask float32 [B, 1 or N, S, T] -> scores [B, N, S, T], masked."""
        scores = self.cast_scores(self.query_key(self.scale_query(query, self.scale), key), self.softmax_dtype)
        if self.half_softmax:
            mask = self.cast_mask(mask, ms.float16)
        return self.add_mask(scores, mask)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """[B, N, S, D], [B, N, T, D], additive mask float32 [B, 1 or N, S, T] -> weights [B, N, S, T]."""
        return self.softmax(self.scores(query, key, mask))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout_key: Tensor = None) -> Tensor:
        """[B, N, S, D], twice [B, N, T, D], mask [B, 1 or N, S, T] -> [B*S, H] after the output projection."""
        if self.joined and dropout_key is None:
            context, _ = self.weighted_values(self.scores(query, key, mask), value)  # [B, N, S, D]
        else:
            weights = self.cast_weights(self.weights(query, key, mask), self.compute_dtype)
            context = self.weights_value(self.dropout(weights, dropout_key), value)
        return self.output(self.merge_heads(context))

    def construct(self, query_input: Tensor, hidden: Tensor, mask: Tensor, dropout_key: Tensor = None) -> Tensor:
        """[B*S, H], [B*S, H], additive mask [B, 1 or N, S, S] -> [B*S, H]."""
        batch = mask.shape[0]
        query = self.split_heads(self.query(query_input), batch)
        key = self.split_heads(self.key(hidden), batch)
        value = self.split_heads(self.value(hidden), batch)
        return self.attend(query, key, value, mask, dropout_key)
