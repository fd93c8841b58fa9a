"""A process among all that run the same job: its rank, and sums over them outside of the training graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops


class _Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.sum = ops.AllReduce()

    def construct(self, value: Tensor) -> Tensor:
        """float32 [N] -> float32 [N]."""
        return self.sum(value)


class Ranks:
    """Rank and number of the processes of a run; one process alone has no need of MindSpore's collectives."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self._sum = _Sum() if count > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The sum over all processes of some numbers, the same on each; all must call it."""
        array = np.atleast_1d(np.asarray(values, np.float64))
        if self._sum is None:
            return array
        from pangu_alpha.parallel.context import plain_graphs

        # In two float32 parts, as MindSpore has no float64 sum on every device.
        high = array.astype(np.float32)
        low = (array - high).astype(np.float32)
        with plain_graphs():
            both = self._sum(Tensor(np.concatenate([high, low])))
        total: npt.NDArray[np.float64] = both.asnumpy().astype(np.float64)
        return total[: len(array)] + total[len(array) :]

    def any(self, flag: bool) -> bool:
        """Whether it is true on any process; all must call it."""
        return bool(self.sum(float(flag))[0] > 0)

    def of_first(self, value: float) -> float:
        """The first process's value, on each; all must call it."""
        return float(self.sum(value if self.is_first else 0.0)[0])
