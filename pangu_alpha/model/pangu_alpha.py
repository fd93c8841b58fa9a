"""PanGu-α: embedding, blocks, query layer, tied head (paper section 2)."""

# B = batch, S = seq, H = hidden, V = vocabulary; a hidden state is [B*S, H], one row a token.

from __future__ import annotations

from mindspore import Tensor, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.block import Block
from pangu_alpha.model.embedding import Embedding
from pangu_alpha.model.head import Head
from pangu_alpha.model.layer_norm import LayerNorm
from pangu_alpha.model.loss import Loss
from pangu_alpha.model.mask import AttentionMask
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.parameter import new_parameter
from pangu_alpha.model.query_layer import QueryLayer


class PanguAlphaModel(nn.Cell):
    """Tokens with their positions, and the positions asked for -> logits.

    `final_norm` decides the one difference of the released code paths: before the query layer (2.6B, 13B) or after it
    (200B).  Without the query layer this is plain GPT.
    """

    def __init__(self, config: ModelConfig, numerics: Numerics) -> None:
        super().__init__()
        self.word_table = new_parameter("word_table", config.vocab_size, config.hidden_size)
        self.embedding = Embedding(config, numerics)
        self.mask = AttentionMask(config.seq_length)
        # On the CPU every head gets a mask of its own: equal shapes are added twice as fast as broadcast ones.
        self.mask_copies = 1 if numerics.fused_operators else config.num_heads
        self.repeat = ops.Tile()
        self.blocks = nn.CellList([Block(config, numerics, layer) for layer in range(config.num_blocks)])
        self.final_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon, numerics)
        self.has_query_layer = config.query_layer
        if config.query_layer:
            self.query_layer = QueryLayer(config, numerics)
        self.head = Head(numerics)
        self.norm_before_query = config.final_norm == "before_query"

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, dropout_key: Tensor = None
    ) -> Tensor:
        """Four int32 [B, S] -> logits [B*S, V] in the compute type; a dropout key turns dropout on."""
        mask = self.repeat(self.mask(segments), (1, self.mask_copies, 1, 1))
        hidden = self.embedding(tokens, positions, self.word_table, dropout_key)
        for block in self.blocks:
            hidden = block(hidden, mask, None, dropout_key)
        if not self.has_query_layer:
            hidden = self.final_norm(hidden)
        elif self.norm_before_query:
            hidden = self.query_layer(self.final_norm(hidden), mask, query_positions, dropout_key)
        else:
            hidden = self.final_norm(self.query_layer(hidden, mask, query_positions, dropout_key))
        return self.head(hidden, self.word_table)


class PanguAlphaLoss(nn.Cell):
    """The model with its training loss: five int32 [B, S] -> float32 []."""

    def __init__(self, model: PanguAlphaModel, vocab_size: int) -> None:
        super().__init__(auto_prefix=False)  # parameters keep the model's names
        self.model = model
        self.loss = Loss(vocab_size)

    def construct(
        self,
        tokens: Tensor,
        positions: Tensor,
        query_positions: Tensor,
        segments: Tensor,
        labels: Tensor,
        dropout_key: Tensor = None,
    ) -> Tensor:
        """Tokens, positions, query positions, segments, labels -> mean loss, float32 []."""
        logits = self.model(tokens, positions, query_positions, segments, dropout_key)
        return self.loss(logits, labels, tokens)
