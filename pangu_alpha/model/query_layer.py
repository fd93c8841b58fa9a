"""The query layer, paper section 2.2.2: the last layer, told which position to predict."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.block import Block
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.parameter import new_parameter
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class QueryLayer(nn.Cell):
    """A block whose attention asks with `query_table[query position]` alone.

    No token, no position table and no norm on the query side; the residual is the backbone's output.  Query index p
    asks for the token at position p + 1 (the published convention).
    """

    def __init__(self, config: ModelConfig, numerics: Numerics, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.query_table = new_parameter("query_table", config.seq_length, config.hidden_size)
        self.block = Block(config, numerics, config.num_layers - 1, sharding)
        self.gather = sharding.shard(ops.Gather(), "query_gather")
        self.reshape = ops.Reshape()
        self.cast = sharding.shard(ops.Cast(), "query_cast")
        self.hidden_size = config.hidden_size
        self.compute_dtype = numerics.compute_dtype

    def query_input(self, query_positions: Tensor) -> Tensor:
        """int32 [B, S] -> [B*S, H] in the compute type."""
        rows = self.gather(self.query_table, query_positions, 0)
        return self.cast(self.reshape(rows, (-1, self.hidden_size)), self.compute_dtype)

    def construct(self, hidden: Tensor, mask: Tensor, query_positions: Tensor, dropout_key: Tensor = None) -> Tensor:
        """hidden [B*S, H], mask [B, 1 or N, S, S], query positions int32 [B, S] -> [B*S, H]."""
        return self.block(hidden, mask, self.query_input(query_positions), dropout_key)
