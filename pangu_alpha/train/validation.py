"""How well the model predicts held-out text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor

from pangu_alpha.config import ModelConfig
from pangu_alpha.inference.language_model import TokenScorer
from pangu_alpha.model.loss import LEAST_COUNT, PAD_ID
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
from pangu_alpha.model.top_cell import TopCell
from pangu_alpha.parallel.context import plain_graphs
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.ranks import Ranks
from pangu_alpha.parallel.tied_table import TiedTableCopy


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


class HeldOutLoss(TopCell):
    """The training network with the same strategies, without dropout: five int32 [B, S] -> mean loss, float32 []."""

    def __init__(self, network: PanguAlphaLoss) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, labels: Tensor
    ) -> Tensor:
        """Tokens, positions, query positions, segments, labels -> float32 [], in a pipeline on its last stage alone."""
        return self.network(tokens, positions, query_positions, segments, labels)


class LaidOutValidator:
    """Scores held-out batches on all ranks of a cluster, each of which computes its part of every batch."""

    def __init__(self, network: PanguAlphaLoss, layout: Layout, ranks: Ranks) -> None:
        self.loss, self.layout, self.ranks = HeldOutLoss(network), layout, ranks
        self.in_last_stage = layout.stage_of(ranks.rank) == layout.pipeline_stages - 1
        in_first_stage = layout.stage_of(ranks.rank) == 0
        table: Parameter = network.model.word_table
        takes_part = layout.in_pipeline and (in_first_stage or self.in_last_stage)
        self.copy_table = TiedTableCopy(table, layout, ranks.rank) if takes_part else None

    def __call__(self, batches: Iterable[Sequence[np.ndarray]]) -> HeldOutScore:
        """Whole batches of five int32 [B, S], the same on every rank; steps that feed <pad> are not counted."""
        nats, tokens = 0.0, 0
        for number, batch in enumerate(batches):
            counted = int((batch[0] != PAD_ID).sum())
            if number == 0:
                self._before_first(batch)
            mean = float(self.loss(*self._own_rows(batch)).asnumpy())
            nats += mean * (counted + LEAST_COUNT) if self.in_last_stage else 0.0
            tokens += counted
        if self.layout.in_pipeline:
            nats = float(self.ranks.sum(nats)[0]) / self.layout.devices_per_stage
        return HeldOutScore(nats, tokens)

    def _before_first(self, batch: Sequence[np.ndarray]) -> None:
        # Not for training, down to the last cell: else MindSpore looks for the stages of a backward pass.
        self.loss.set_train(False)
        self.loss.compile(*self._own_rows(batch))  # slices the table, if nothing has yet
        self.loss.network.set_train(True)
        if self.copy_table is not None:
            with plain_graphs():
                self.copy_table()

    def _own_rows(self, batch: Sequence[np.ndarray]) -> list[Tensor]:
        part, parts = self.layout.row_part(self.ranks.rank), self.layout.row_parts
        return [Tensor(np.split(array, parts)[part]) for array in batch]
