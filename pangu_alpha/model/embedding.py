"""Token and position embedding, paper section 2.2.1."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.dropout import Dropout
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.parameter import new_parameter
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class Embedding(nn.Cell):
    """`Dropout(word_table[token] + position_table[position])`: two int32 [B, S] -> [B*S, H] in the compute type.

    The word table is handed in, as the head uses it too; sum and dropout are float32, as published.
    """

    def __init__(self, config: ModelConfig, numerics: Numerics, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.position_table = new_parameter("position_table", config.seq_length, config.hidden_size)
        self.gather_word = sharding.shard(ops.Gather(), "word_gather")
        self.gather_position = sharding.shard(ops.Gather(), "position_gather")
        self.add = sharding.shard(ops.Add(), "embedding_add")
        self.reshape = ops.Reshape()
        self.cast = sharding.shard(ops.Cast(), "embedding_cast")
        self.dropout = Dropout(config.dropout, 0, numerics, "embedding_dropout", sharding)
        self.hidden_size = config.hidden_size
        self.compute_dtype = numerics.compute_dtype

    def construct(self, tokens: Tensor, positions: Tensor, word_table: Parameter, dropout_key: Tensor = None) -> Tensor:
        """int32 [B, S] twice, word table [V, H] -> [B*S, H]."""
        word = self.gather_word(word_table, tokens, 0)  # [B, S, H]
        position = self.gather_position(self.position_table, positions, 0)
        summed = self.reshape(self.add(word, position), (-1, self.hidden_size))
        return self.cast(self.dropout(summed, dropout_key), self.compute_dtype)
