"""Matrix product with bias, in the compute type, over flattened tokens."""

# B = batch, S = seq; a hidden state is kept as [B*S, H], one row a token.

from __future__ import annotations

from mindspore import Tensor, nn, ops

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.operators import AddBias
from pangu_alpha.model.parameter import new_parameter
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class Linear(nn.Cell):
    """`y = x W + b`:  [B*S, in_size] -> [B*S, out_size] in the compute type.

    Three kinds: a `column` product's outputs may be divided over devices, a `row` product's inputs, and then its
    outputs are sums of parts.  A `transposed_column` keeps its weight as [out, in], the way the released checkpoints
    keep query, key and value; the others are [in, out] (official `pangu_alpha.py`: nn.Dense against Mapping).
    """

    def __init__(
        self, in_size: int, out_size: int, numerics: Numerics, kind: str, sharding: Sharding = UNSHARDED
    ) -> None:
        super().__init__()
        transposed, divided = kind == "transposed_column", "row" if kind == "row" else "column"
        self.weight = new_parameter("weight", *((out_size, in_size) if transposed else (in_size, out_size)))
        self.bias = new_parameter("bias", out_size)
        self.matmul = sharding.shard(ops.MatMul(transpose_b=transposed), f"{kind}_matmul")
        fused = sharding.shard(ops.BiasAdd(), f"{divided}_add_bias")
        self.add_bias = fused if numerics.fused_operators else AddBias()
        self.cast_weight = sharding.shard(ops.Cast(), f"{kind}_weight")
        self.cast_bias = sharding.shard(ops.Cast(), f"{divided}_bias")
        self.compute_dtype = numerics.compute_dtype

    def construct(self, hidden: Tensor) -> Tensor:
        """[B*S, in_size] -> [B*S, out_size]."""
        weight = self.cast_weight(self.weight, self.compute_dtype)
        return self.add_bias(self.matmul(hidden, weight), self.cast_bias(self.bias, self.compute_dtype))
