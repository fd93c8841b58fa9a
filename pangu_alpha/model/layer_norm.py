"""LayerNorm in float32, whatever type the residual stream has."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.operators import AddBias, Normalize, ScaleColumns
from pangu_alpha.model.parameter import new_parameter
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class LayerNorm(nn.Cell):
    """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis:  [B*S, H] -> [B*S, H].

    Computed in float32, returned in the compute type; epsilon stands inside the root, as published.
    """

    def __init__(self, hidden_size: int, epsilon: float, numerics: Numerics, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.gamma = new_parameter("gamma", hidden_size)
        self.beta = new_parameter("beta", hidden_size)
        self.fused = numerics.fused_operators
        if self.fused:
            layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=epsilon)
            self.layer_norm = sharding.shard(layer_norm, "norm")
        else:
            self.normalize, self.scale, self.shift = Normalize(epsilon), ScaleColumns(), AddBias()
        self.to_float32 = sharding.shard(ops.Cast(), "norm_cast")
        self.to_compute = sharding.shard(ops.Cast(), "norm_cast")
        self.compute_dtype = numerics.compute_dtype

    def construct(self, hidden: Tensor) -> Tensor:
        """[B*S, H] -> [B*S, H]."""
        hidden = self.to_float32(hidden, ms.float32)
        if self.fused:
            normed, _, _ = self.layer_norm(hidden, self.gamma, self.beta)
        else:
            normed, _ = self.normalize(hidden)
            normed = self.shift(self.scale(normed, self.gamma), self.beta)
        return self.to_compute(normed, self.compute_dtype)
