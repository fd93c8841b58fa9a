"""The attention mask, built inside the graph from the documents that a sample joins."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.model.sharding import UNSHARDED, Sharding


class AttentionMask(nn.Cell):
    """Step n sees step m where m <= n and both belong to one document: segments int32 [B, S] -> float32 [B, 1, S, S].

    Additive: 0 where visible, -10000 elsewhere, as published.  Causal over steps, so random token order needs no
    other mask.  Only the segments cross from the host.
    """

    def __init__(self, seq_length: int, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.causal = Tensor(np.tril(np.ones((1, seq_length, seq_length), np.float32)))
        self.rows = sharding.shard(ops.ExpandDims(), "mask_expand")
        self.columns = sharding.shard(ops.ExpandDims(), "mask_expand")
        self.equal = sharding.shard(ops.Equal(), "mask_equal")
        self.cast = sharding.shard(ops.Cast(), "mask_cast")
        self.multiply = sharding.shard(ops.Mul(), "mask_causal")
        self.heads = sharding.shard(ops.ExpandDims(), "mask_expand_heads")
        self.subtract = sharding.shard(ops.Sub(), "mask_subtract")
        self.scale = sharding.shard(ops.Mul(), "mask_scale")
        self.one, self.hidden = Tensor(1.0, ms.float32), Tensor(-10000.0, ms.float32)

    def construct(self, segments: Tensor) -> Tensor:
        """int32 [B, S] -> additive float32 [B, 1, S, S]."""
        same = self.equal(self.rows(segments, 2), self.columns(segments, 1))  # [B, S, S]
        visible = self.multiply(self.cast(same, ms.float32), self.causal)
        return self.scale(self.subtract(self.one, self.heads(visible, 1)), self.hidden)
