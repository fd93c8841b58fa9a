"""The word table of a pipeline: the first stage owns it, and the last stage, which makes the logits, has a copy.

Training sends the table there in every step and never stores it, so the last stage's own copy keeps its initial values
(emulation of MindSpore 2.10).  Whoever computes logits outside of a training step has it copied first.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, communication, nn, ops

from pangu_alpha.parallel.layout import Layout


class TiedTableCopy(nn.Cell):
    """Gives the last stage the first stage's word table, slice by slice; ranks of other stages do not call it.

    To be compiled by `context.plain_graphs`, since it works on the slices as they are.
    """

    def __init__(self, table: Parameter, layout: Layout, rank: int) -> None:
        super().__init__(auto_prefix=False)
        self.table = table
        first = rank % layout.devices_per_stage
        pair = [first, first + (layout.pipeline_stages - 1) * layout.devices_per_stage]
        group = f"word_table_of_rank_{first}"
        communication.create_group(group, pair)
        self.sum_over_pair = ops.AllReduce(group=group)
        self.share = Tensor(np.float32(rank == first))

    def construct(self) -> Tensor:
        """The table's slice, float32 [rows, H], now the same on both."""
        return ops.assign(self.table, self.sum_over_pair(self.table * self.share))
