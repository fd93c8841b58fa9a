"""Parameters whose values come later: from `initial_values` or from a checkpoint."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter
from mindspore.common.initializer import Initializer, initializer


class Unfilled(Initializer):
    """Leaves a new parameter's memory as the system gives it, so that pages nobody writes cost nothing."""

    def _initialize(self, arr: np.ndarray) -> None:
        """Called by MindSpore with the array to fill, which stays as it is."""


def new_parameter(name: str, *shape: int) -> Parameter:
    """A float32 parameter of `shape` that a checkpoint or `initial_values` fills afterwards."""
    return Parameter(initializer(Unfilled(), list(shape), ms.float32), name=name)
