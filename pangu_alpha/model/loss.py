"""Cross entropy of the asked-for tokens, in float32."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

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


class Loss(nn.Cell):
    """The mean over the steps that feed a token other than <pad>, with 1e-5 in the denominator (official loss).

    Predictions across a document border are counted, as published.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.token_loss = TokenLoss(vocab_size)
        self.not_equal, self.cast, self.reshape = ops.NotEqual(), ops.Cast(), ops.Reshape()
        self.multiply, self.sum, self.divide = ops.Mul(), ops.ReduceSum(), ops.RealDiv()

    def construct(self, logits: Tensor, labels: Tensor, tokens: Tensor) -> Tensor:
        """[B*S, V], int32 [B, S], int32 [B, S] -> float32 []."""
        counted = self.cast(self.not_equal(self.reshape(tokens, (-1,)), PAD_ID), ms.float32)
        total = self.sum(self.multiply(self.token_loss(logits, labels), counted))
        return self.divide(total, self.sum(counted) + 1e-5)
