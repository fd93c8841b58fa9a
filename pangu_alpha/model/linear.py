"""Matrix product with bias, in the compute type, over flattened tokens."""

# B = batch, S = seq; a hidden state is kept as [B*S, H], one row a token.

from __future__ import annotations

from mindspore import Tensor, nn, ops

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.operators import AddBias
from pangu_alpha.model.parameter import new_parameter


class Linear(nn.Cell):
    """`y = x W + b`:  [B*S, in_size] -> [B*S, out_size] in the compute type.

    `transposed` keeps the weight as [out, in], the way the released checkpoints keep query, key and value; the
    others are [in, out] (official `pangu_alpha.py`: nn.Dense against Mapping).
    """

    def __init__(self, in_size: int, out_size: int, numerics: Numerics, transposed: bool = False) -> None:
        super().__init__()
        self.weight = new_parameter("weight", *((out_size, in_size) if transposed else (in_size, out_size)))
        self.bias = new_parameter("bias", out_size)
        self.matmul = ops.MatMul(transpose_b=transposed)
        self.add_bias = ops.BiasAdd() if numerics.fused_operators else AddBias()
        self.cast = ops.Cast()
        self.compute_dtype = numerics.compute_dtype

    def construct(self, hidden: Tensor) -> Tensor:
        """[B*S, in_size] -> [B*S, out_size]."""
        weight = self.cast(self.weight, self.compute_dtype)
        return self.add_bias(self.matmul(hidden, weight), self.cast(self.bias, self.compute_dtype))
