"""How well the model predicts held-out text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor

from pangu_alpha.config import ModelConfig
from pangu_alpha.inference.language_model import TokenScorer
from pangu_alpha.model.loss import PAD_ID
from pangu_alpha.model.pangu_alpha import PanguAlphaModel


@dataclass(frozen=True)
class HeldOutScore:
    """What the model makes of the held-out tokens that it was asked for."""

    nats: float
    """Their negative log-probability, natural logarithm, summed."""
    tokens: int
    """How many there were."""

    @property
    def loss(self) -> float:
        """Mean nats a token."""
        return self.nats / max(1, self.tokens)

    @property
    def perplexity(self) -> float:
        """exp of the loss."""
        return math.exp(min(self.loss, 700.0))

    def bits_per_character(self, characters: int) -> float:
        """Bits a character of the text that the tokens spell, its `characters` counted with the document ends."""
        return self.nats / math.log(2.0) / characters


class Validator:
    """Scores held-out batches with the weights as they are, without dropout, in sequential order."""

    def __init__(self, model: PanguAlphaModel, config: ModelConfig) -> None:
        self.scorer = TokenScorer(model, config.vocab_size)

    def __call__(self, batches: Iterable[Sequence[np.ndarray]]) -> HeldOutScore:
        """Batches of five int32 [B, S]; steps that feed <pad> are not counted."""
        nats, tokens = 0.0, 0
        for batch in batches:
            losses = self.scorer(*(Tensor(array) for array in batch)).asnumpy()
            counted = batch[0].reshape(-1) != PAD_ID
            nats += float(losses[counted].sum(dtype=np.float64))
            tokens += int(counted.sum())
        return HeldOutScore(nats, tokens)
