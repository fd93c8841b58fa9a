"""One layer: attention and feed-forward with residuals, normalised before each part (paper figure 2)."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.attention import Attention
from pangu_alpha.model.dropout import Dropout
from pangu_alpha.model.feed_forward import FeedForward
from pangu_alpha.model.layer_norm import LayerNorm
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.sharding import UNSHARDED, Sharding

SITES_PER_LAYER = 3
"""Places of a layer where dropout acts: attention weights, attention output, feed-forward output."""


class Block(nn.Cell):
    """`a = x + Attention(Norm(x));  y = a + FeedForward(Norm(a))`:  [B*S, H] -> [B*S, H].

    With a query input the attention asks with it instead of with Norm(x); the residual stays x.  That is all the
    query layer differs by.
    """

    def __init__(self, config: ModelConfig, numerics: Numerics, layer: int, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        first_site = 1 + layer * SITES_PER_LAYER  # site 0 is the embedding's
        self.attention_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon, numerics, sharding)
        self.attention = Attention(config, numerics, first_site, sharding)
        self.attention_dropout = Dropout(config.dropout, first_site + 1, numerics, "hidden_dropout", sharding)
        self.feed_forward_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon, numerics, sharding)
        self.feed_forward = FeedForward(config, numerics, sharding)
        self.feed_forward_dropout = Dropout(config.dropout, first_site + 2, numerics, "hidden_dropout", sharding)
        self.add_attention = sharding.shard(ops.Add(), "residual_add")
        self.add_feed_forward = sharding.shard(ops.Add(), "residual_add")

    def add_attended(self, hidden: Tensor, attended: Tensor, dropout_key: Tensor = None) -> Tensor:
        """The rest of the layer once attention is computed: hidden and attended [B*S, H] -> [B*S, H]."""
        hidden = self.add_attention(hidden, self.attention_dropout(attended, dropout_key))
        transformed = self.feed_forward(self.feed_forward_norm(hidden))
        return self.add_feed_forward(hidden, self.feed_forward_dropout(transformed, dropout_key))

    def construct(self, hidden: Tensor, mask: Tensor, query_input: Tensor = None, dropout_key: Tensor = None) -> Tensor:
        """hidden [B*S, H], additive mask [B, 1 or N, S, S], query input [B*S, H] or None -> [B*S, H]."""
        normed = self.attention_norm(hidden)
        asking = normed if query_input is None else query_input
        return self.add_attended(hidden, self.attention(asking, normed, mask, dropout_key), dropout_key)
