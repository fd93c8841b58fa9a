"""From hidden states to logits with the tied word table."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class Head(nn.Cell):
    """`hidden word_table^T`, no bias:  [B*S, H], [V, H] -> [B*S, V] in the compute type.

    The paper's equation 6 writes a bias; the official code has none.
    """

    def __init__(self, numerics: Numerics, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.matmul = sharding.shard(ops.MatMul(transpose_b=True), "head_matmul")
        self.cast = sharding.shard(ops.Cast(), "head_weight")
        self.compute_dtype = numerics.compute_dtype

    def construct(self, hidden: Tensor, word_table: Parameter) -> Tensor:
        """[B*S, H], [V, H] -> [B*S, V]."""
        return self.matmul(hidden, self.cast(word_table, self.compute_dtype))
