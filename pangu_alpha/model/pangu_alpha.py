"""PanGu-α: embedding, blocks, query layer, tied head (paper section 2)."""

# B = batch, S = seq, H = hidden, V = vocabulary; a hidden state is [B*S, H], one row a token.

from __future__ import annotations

from mindspore import Tensor, lazy_inline, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.block import Block
from pangu_alpha.model.dropout import DropoutKey
from pangu_alpha.model.embedding import Embedding
from pangu_alpha.model.head import Head
from pangu_alpha.model.layer_norm import LayerNorm
from pangu_alpha.model.loss import HeadLoss, Loss
from pangu_alpha.model.mask import AttentionMask
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.parameter import new_parameter
from pangu_alpha.model.query_layer import QueryLayer
from pangu_alpha.model.sharding import UNSHARDED, Sharding


class PanguAlphaModel(nn.Cell):
    """Tokens with their positions, and the positions asked for -> logits.

    `final_norm` decides the one difference of the released code paths: before the query layer (2.6B, 13B) or after it
    (200B).  Without the query layer this is plain GPT.
    """

    def __init__(
        self, config: ModelConfig, numerics: Numerics, sharding: Sharding = UNSHARDED, dropout_seed: int = 1
    ) -> None:
        super().__init__()
        self.sharding = sharding
        self.word_table = new_parameter("word_table", config.vocab_size, config.hidden_size)
        self.embedding = Embedding(config, numerics, sharding)
        self.masks = nn.CellList([AttentionMask(config.seq_length, sharding) for _ in range(sharding.stages)])
        self.dropout_keys = nn.CellList([DropoutKey(dropout_seed, sharding) for _ in range(sharding.stages)])
        # On the CPU every head gets a mask of its own: equal shapes are added twice as fast as broadcast ones.
        self.mask_copies = 1 if numerics.fused_operators else config.num_heads
        self.repeat = ops.Tile()
        self.blocks = nn.CellList([Block(config, numerics, layer, sharding) for layer in range(config.num_blocks)])
        self.final_norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon, numerics, sharding)
        self.has_query_layer = config.query_layer
        if config.query_layer:
            self.query_layer = QueryLayer(config, numerics, sharding)
        self.head = Head(numerics, sharding)
        self.norm_before_query = config.final_norm == "before_query"
        self.stages = tuple(sharding.stage_of_layer(layer) for layer in range(config.num_layers))
        self.joined_cells = numerics.joined_cells
        self.has_dropout, self.counter_dropout = config.dropout > 0.0, numerics.counter_dropout

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, micro_step: Tensor = None
    ) -> Tensor:
        """Four int32 [B, S] -> logits [B*S, V] in the compute type; a micro step, int32 [1], turns dropout on."""
        return self.head(self.hidden(tokens, positions, query_positions, segments, micro_step), self.word_table)

    def hidden(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, micro_step: Tensor = None
    ) -> Tensor:
        """What the head takes: four int32 [B, S] -> [B*S, H] in the compute type."""
        masks, keys = self.shared_by_layers(segments, micro_step)
        hidden = self.embedding(tokens, positions, self.word_table, keys[0])
        for layer in range(len(self.blocks)):
            stage = self.stages[layer]
            hidden = self.blocks[layer](hidden, masks[stage], None, keys[stage])
        mask, key = masks[self.stages[-1]], keys[self.stages[-1]]
        if not self.has_query_layer:
            hidden = self.final_norm(hidden)
        elif self.norm_before_query:
            hidden = self.query_layer(self.final_norm(hidden), mask, query_positions, key)
        else:
            hidden = self.final_norm(self.query_layer(hidden, mask, query_positions, key))
        return hidden

    def shared_by_layers(
        self, segments: Tensor, micro_step: Tensor = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Attention mask and dropout key (None without dropout), once in each pipeline stage: none is sent on."""
        masks: tuple[Tensor, ...] = ()
        keys: tuple[Tensor, ...] = ()
        for stage in range(len(self.masks)):
            mask = self.masks[stage](segments)
            if self.mask_copies > 1:
                mask = self.repeat(mask, (1, self.mask_copies, 1, 1))
            masks += (mask,)
            key = None
            if self.has_dropout and micro_step is not None:
                key = self.dropout_keys[stage](micro_step) if self.counter_dropout else micro_step
            keys += (key,)
        return masks, keys


class PanguAlphaLoss(nn.Cell):
    """The model with its training loss: five int32 [B, S] -> float32 []."""

    def __init__(self, model: PanguAlphaModel, vocab_size: int) -> None:
        super().__init__(auto_prefix=False)  # parameters keep the model's names
        self.model = model
        self.loss = Loss(vocab_size, model.sharding)
        self.joined = model.joined_cells
        if self.joined:
            self.head_loss, self.reshape = HeadLoss(vocab_size), ops.Reshape()

    def construct(
        self,
        tokens: Tensor,
        positions: Tensor,
        query_positions: Tensor,
        segments: Tensor,
        labels: Tensor,
        micro_step: Tensor = None,
    ) -> Tensor:
        """Tokens, positions, query positions, segments, labels; micro step int32 [1] -> mean loss, float32 []."""
        if self.joined:
            hidden = self.model.hidden(tokens, positions, query_positions, segments, micro_step)
            losses, _ = self.head_loss(hidden, self.model.word_table, self.reshape(labels, (-1,)))
            return self.loss.mean(losses, tokens)
        logits = self.model(tokens, positions, query_positions, segments, micro_step)
        return self.loss(logits, labels, tokens)


class PipelinedPanguAlphaLoss(PanguAlphaLoss):
    """PanguAlphaLoss as a pipeline wants it: compiled once and called for every micro batch, not copied for each."""

    @lazy_inline
    def __init__(self, model: PanguAlphaModel, vocab_size: int) -> None:
        super().__init__(model, vocab_size)
