"""Data parallelism of processes on CPUs: MindSpore's collectives there, and nothing else of the five dimensions.

MindSpore refuses semi-automatic parallelism on a CPU ("GetCommInfo"), so what a strategy would bring about is written
out: gradients are summed, and what a loss is divided by.
"""

from __future__ import annotations

from typing import Any

from mindspore import ops

from pangu_alpha.model.sharding import Unsharded
from pangu_alpha.parallel.layout import Layout


class DataParallel(Unsharded):
    """Each rank computes the whole model on its own rows of every micro batch."""

    def __init__(self, layout: Layout, rank: int) -> None:
        self.data_part = layout.data_index(rank)

    def sum_over_data_parallel(self) -> Any:
        """AllReduce over all ranks."""
        return ops.AllReduce()
