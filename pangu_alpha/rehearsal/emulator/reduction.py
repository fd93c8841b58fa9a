"""What a collective makes of its ranks' tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pangu_alpha.rehearsal.emulator.communication import Call

_REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "prod": np.multiply,
}


def exchange(call: Call, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of all ranks of a collective that has the form of `call`, from what they give, in the group's order.

    Sums are made in the element type, one rank after the other.
    """
    count = len(inputs)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is a result here
        if call.operator == "AllReduce":
            return [np.asarray(reduce(_REDUCTIONS[call.reduction], inputs))] * count
        if call.operator == "ReduceScatter":
            return np.split(reduce(_REDUCTIONS[call.reduction], inputs), count)
    if call.operator == "AllGather":
        return [np.concatenate(inputs)] * count
    cut, join = call.axes
    parts = [np.split(tensor, count, cut) for tensor in inputs]
    return [np.concatenate([part[place] for part in parts], join) for place in range(count)]
