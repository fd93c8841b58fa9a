"""The feed-forward part of a layer, paper equation 3."""

from __future__ import annotations

from mindspore import Tensor, nn

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.activation import build_activation
from pangu_alpha.model.linear import Linear
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class FeedForward(nn.Cell):
    """`GELU(x W1 + b1) W2 + b2`:  [B*S, H] -> [B*S, H]."""

    def __init__(self, config: ModelConfig, numerics: Numerics, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.inner = Linear(config.hidden_size, config.feed_forward_size, numerics, "column", sharding)
        self.activation = build_activation(config.activation, numerics, sharding)
        self.output = Linear(config.feed_forward_size, config.hidden_size, numerics, "row", sharding)

    def construct(self, hidden: Tensor) -> Tensor:
        """[B*S, H] -> [B*S, H]."""
        return self.output(self.activation(self.inner(hidden)))
