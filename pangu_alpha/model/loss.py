"""Cross entropy of the asked-for tokens, in float32."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.model.sharding import UNSHARDED, Sharding

LEAST_COUNT = 1e-5
"""Added to the number of counted steps, so that a batch of <pad> alone has the loss 0 (official loss)."""

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
        counted = self.cast(self.not_equal(self.reshape(tokens, (-1,)), self.pad), ms.float32)
        total = self.sum_losses(self.multiply(self.token_loss(logits, labels), counted), 0)
        number = self.sum_counted(counted, 0)
        if self.has_other_rows:  # then this is one rank's part of the mean over all
            number = self.sum_over_ranks(number)
        return self.divide(total, self.add(number, self.least))
