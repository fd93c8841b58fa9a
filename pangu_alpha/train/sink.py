"""Dataset sink mode: several steps a call, fed by the device's own queue (Ascend and GPU)."""

from __future__ import annotations

import logging
from typing import Any

import mindspore as ms
import numpy as np

from pangu_alpha.errors import PanguError
from pangu_alpha.train.step import TrainStep, read_metrics

logger = logging.getLogger(__name__)


def require_queue(sink_size: int, device: str) -> None:
    """Check that a device can be fed the way `train.sink_size` asks for.

    Raises:
        PanguError: sink mode on a CPU, which has no queue.
    """
    if sink_size and device == "cpu":
        raise PanguError(
            f"train.sink_size is {sink_size}, but the CPU has no queue for dataset sink mode; "
            "train.sink_size=0 feeds every step from the host"
        )


class SinkFeed:
    """Runs `sink_size` steps a call on batches that never pass through the host's Python.

    The metrics of a call are those of its last step, as in MindSpore's own sink mode.  Of the others it is told how
    many were not applied: an overflow, a loss that is no number, a gradient too far off.
    """

    def __init__(self, step: TrainStep, dataset: Any, sink_size: int) -> None:
        self._step, self._size = step, sink_size
        self._run = ms.data_sink(step, dataset, sink_size=sink_size)

    def __call__(self) -> tuple[dict[str, float], np.ndarray]:
        """Run the steps -> (METRICS by name, gradient norm of each weight float32 [P])."""
        before = self._applied()
        metrics, norms = self._run()
        values, missed = read_metrics(metrics), self._size - (self._applied() - before)
        if missed:
            logger.warning(
                "%d of the last %d steps were not applied: their gradient is not to be used", missed, self._size
            )
        return values, norms.asnumpy()

    def _applied(self) -> int:
        """Updates so far: a step that is skipped is not counted by the optimizer."""
        return int(self._step.optimizer.global_step.asnumpy()[0])
