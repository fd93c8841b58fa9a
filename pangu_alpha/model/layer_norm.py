"""LayerNorm in float32, whatever type the residual stream has."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.parameter import new_parameter


class LayerNorm(nn.Cell):
    """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis:  [B*S, H] -> [B*S, H].

    Computed in float32, returned in the compute type; epsilon stands inside the root, as published.
    """

    def __init__(self, hidden_size: int, epsilon: float, numerics: Numerics) -> None:
        super().__init__()
        self.gamma = new_parameter("gamma", hidden_size)
        self.beta = new_parameter("beta", hidden_size)
        self.epsilon = epsilon
        self.mean, self.variance = ops.ReduceMean(keep_dims=True), ops.ReduceMean(keep_dims=True)
        self.subtract, self.square, self.rsqrt = ops.Sub(), ops.Square(), ops.Rsqrt()
        self.normalize, self.scale, self.shift = ops.Mul(), ops.Mul(), ops.Add()
        self.to_float32 = ops.Cast()
        self.to_compute = ops.Cast()
        self.compute_dtype = numerics.compute_dtype

    def construct(self, hidden: Tensor) -> Tensor:
        """[B*S, H] -> [B*S, H]."""
        hidden = self.to_float32(hidden, ms.float32)
        centered = self.subtract(hidden, self.mean(hidden, -1))
        deviation = self.rsqrt(self.variance(self.square(centered), -1) + self.epsilon)  # [B*S, 1]
        normed = self.normalize(centered, deviation)
        return self.to_compute(self.shift(self.scale(normed, self.gamma), self.beta), self.compute_dtype)
