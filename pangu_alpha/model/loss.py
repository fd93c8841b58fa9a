"""Cross entropy of the asked-for tokens, in float32."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.model.sharding import UNSHARDED, Sharding

LEAST_COUNT = 1e-5
"""Added to the number of counted steps, so that a batch of <pad> alone has the loss 0 (official loss)."""

LEAST_PROBABILITY = 1e-37
"""Added to a probability before its logarithm: `HeadLoss` of a token is at most 85.2."""

PAD_ID = 6
"""Id of `<pad>` in the released vocabulary: a step that feeds it is not counted."""


class TokenLoss(nn.Cell):
    """`-log softmax(logits)[label]` of every step: logits [B*S, V], labels int32 [B, S] -> float32 [B*S]."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.cast, self.reshape = ops.Cast(), ops.Reshape()
        self.log_softmax = ops.LogSoftmax(axis=-1)
        self.pick = ops.NLLLoss(reduction="none")
        self.weights = Tensor(np.ones(vocab_size, np.float32))

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B*S, V], int32 [B, S] -> float32 [B*S]."""
        log_probabilities = self.log_softmax(self.cast(logits, ms.float32))
        return self.pick(log_probabilities, self.reshape(labels, (-1,)), self.weights)[0]


class HeadLoss(nn.Cell):
    """TokenLoss(Head(hidden)) in one, with its gradient written out, for training on the CPU.

    hidden [M, H], word table [V, H], labels int32 [M] -> losses [M] and probabilities P [M, V], all float32.  The
    logits are passed over once, for P.  With g the gradients of the losses, that of the logits is `g (P - one-hot)`,
    which is never made: its products with table and hidden are `g (P table - table[label])` and `P^T (g hidden)` less
    `g hidden` added up by label.  The gradient is exact where the loss no longer is, beyond 85 (LEAST_PROBABILITY).
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.logits, self.product = ops.MatMul(transpose_b=True), ops.MatMul()
        self.product_of_transposed = ops.MatMul(transpose_a=True)
        self.softmax, self.pick, self.log, self.negate = ops.Softmax(axis=-1), ops.GatherD(), ops.Log(), ops.Neg()
        self.least = Tensor(LEAST_PROBABILITY, ms.float32)
        self.reshape, self.repeat, self.multiply = ops.Reshape(), ops.Tile(), ops.Mul()
        self.gather, self.sum_by_label = ops.Gather(), ops.UnsortedSegmentSum()

    def construct(self, hidden: Tensor, word_table: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """[M, H], [V, H], int32 [M] -> [M] and [M, V]; nobody asks for the gradient of the second."""
        probabilities = self.softmax(self.logits(hidden, word_table))
        picked = self.pick(probabilities, 1, self.reshape(labels, (-1, 1)))
        losses = self.negate(self.log(picked + self.least))  # a sum, as a maximum would hide a NaN
        return self.reshape(losses, (-1,)), probabilities

    def bprop(
        self,
        hidden: Tensor,
        word_table: Tensor,
        labels: Tensor,
        outputs: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of hidden and word table."""
        probabilities = outputs[1]
        gradient = self.repeat(self.reshape(gradients[0], (-1, 1)), (1, hidden.shape[1]))
        expected = self.product(probabilities, word_table) - self.gather(word_table, labels, 0)
        scaled = self.multiply(gradient, hidden)
        of_table = self.product_of_transposed(probabilities, scaled)
        return (
            self.multiply(gradient, expected),
            of_table - self.sum_by_label(scaled, labels, self.vocab_size),
            ops.zeros_like(labels),
        )


class DividedTokenLoss(nn.Cell):
    """TokenLoss over logits whose columns may be divided over devices: only maxima and sums cross them.

    `log sum exp(z - max z) - (z - max z)[label]`; the label is picked by a one-hot product, as in the official loss.
    """

    def __init__(self, vocab_size: int, sharding: Sharding) -> None:
        super().__init__()
        shard = sharding.shard
        self.vocab_size = vocab_size
        self.cast = shard(ops.Cast(), "loss_logits")
        self.maximum = shard(ops.ReduceMax(keep_dims=True), "loss_logits")
        self.subtract_maximum = shard(ops.Sub(), "loss_column")
        self.exp = shard(ops.Exp(), "loss_logits")
        self.sum_exp = shard(ops.ReduceSum(keep_dims=True), "loss_logits")
        self.log = shard(ops.Log(), "loss_row")
        self.subtract_log = shard(ops.Sub(), "loss_column")
        self.one_hot = shard(ops.OneHot(), "loss_one_hot")
        self.pick = shard(ops.Mul(), "loss_pair")
        self.sum_picked = shard(ops.ReduceSum(), "loss_logits")
        self.negate = shard(ops.Neg(), "loss_tokens")
        self.reshape = ops.Reshape()
        self.on, self.off = Tensor(1.0, ms.float32), Tensor(0.0, ms.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B*S, V], int32 [B, S] -> float32 [B*S]."""
        logits = self.cast(logits, ms.float32)
        shifted = self.subtract_maximum(logits, ops.stop_gradient(self.maximum(logits, -1)))
        log_probabilities = self.subtract_log(shifted, self.log(self.sum_exp(self.exp(shifted), -1)))
        chosen = self.one_hot(self.reshape(labels, (-1,)), self.vocab_size, self.on, self.off)
        return self.negate(self.sum_picked(self.pick(log_probabilities, chosen), -1))


class Loss(nn.Cell):
    """The mean over the steps that feed a token other than <pad>, with 1e-5 in the denominator (official loss).

    Predictions across a document border are counted, as published.
    """

    def __init__(self, vocab_size: int, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        shard = sharding.shard
        self.token_loss = DividedTokenLoss(vocab_size, sharding) if sharding.active else TokenLoss(vocab_size)
        self.not_equal = shard(ops.NotEqual(), "loss_tokens_scalar")
        self.cast = shard(ops.Cast(), "loss_tokens")
        self.multiply = shard(ops.Mul(), "loss_tokens_pair")
        self.sum_losses, self.sum_counted = (shard(ops.ReduceSum(), "loss_tokens") for _ in range(2))
        self.add, self.divide = shard(ops.Add(), "loss_scalars"), shard(ops.RealDiv(), "loss_scalars")
        self.reshape = ops.Reshape()
        self.sum_over_ranks = sharding.sum_over_data_parallel()
        self.has_other_rows = self.sum_over_ranks is not None
        self.pad, self.least = Tensor(PAD_ID, ms.int32), Tensor(LEAST_COUNT, ms.float32)

    def construct(self, logits: Tensor, labels: Tensor, tokens: Tensor) -> Tensor:
        """[B*S, V], int32 [B, S], int32 [B, S] -> float32 []."""
        return self.mean(self.token_loss(logits, labels), tokens)

    def mean(self, losses: Tensor, tokens: Tensor) -> Tensor:
        """Losses float32 [B*S], tokens int32 [B, S] -> float32 []."""
        counted = self.cast(self.not_equal(self.reshape(tokens, (-1,)), self.pad), ms.float32)
        total = self.sum_losses(self.multiply(losses, counted), 0)
        number = self.sum_counted(counted, 0)
        if self.has_other_rows:  # then this is one rank's part of the mean over all
            number = self.sum_over_ranks(number)
        return self.divide(total, self.add(number, self.least))
