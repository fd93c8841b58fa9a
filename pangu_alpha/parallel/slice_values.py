"""Values of a rank's parameters: of each only the part that the rank holds is ever made or read.

Of the 200B model's 207 billion weights a rank of the released layout holds 0.8 billion.  MindSpore asks a parameter for
its values when the graph is compiled, once it knows the part, and never asks those of other pipeline stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common.initializer import Initializer

from pangu_alpha.config import ModelConfig
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.slices import parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter

Part = tuple[slice, ...]
"""Which rows, columns … of a whole tensor."""


class _SliceValues(Initializer):
    """Gives MindSpore the values of one part of a parameter when it asks for them."""

    def __init__(self, name: str, part: Part, value: Callable[[Part], np.ndarray]) -> None:
        super().__init__()
        self.name, self.part, self.value = name, part, value

    def _initialize(self, arr: np.ndarray) -> None:
        """Called by MindSpore with the array to fill, of the shape of the rank's part."""
        expected = tuple(axis.stop - axis.start for axis in self.part)
        if arr.shape != expected:
            raise RuntimeError(
                f"MindSpore keeps {list(arr.shape)} of {self.name}, and the layout says {list(expected)}"
            )
        arr[...] = self.value(self.part)


def give_slice_values(
    parameters: Iterable[Parameter],
    value: Callable[[str, Part], np.ndarray],
    model: ModelConfig,
    layout: Layout,
    rank: int,
    weight_of: Callable[[str], str] = lambda name: name,
) -> None:
    """Tell MindSpore where to have the values of parameters from; nothing is read or made before the graph is compiled.

    Args:
        parameters: of the model or its moments, not yet filled.
        value: of a parameter's name and the part wanted, the values of that part.
        model: the model.
        layout: of all ranks.
        rank: this one; parameters of other stages are left without values.
        weight_of: the name of the weight that is cut as the parameter is.
    """
    stage = layout.stage_of(rank)
    for parameter in parameters:
        weight, shape = weight_of(parameter.name), tuple(parameter.shape)
        if stage not in stages_of_parameter(weight, model, layout):
            continue
        part = parameter_slice(weight, shape, layout, rank)
        values = _SliceValues(parameter.name, part, _of(value, parameter.name))
        parameter.set_data(Tensor(shape=shape, dtype=parameter.dtype, init=values))


def _of(value: Callable[[str, Part], np.ndarray], name: str) -> Callable[[Part], np.ndarray]:
    return lambda part: value(name, part)
