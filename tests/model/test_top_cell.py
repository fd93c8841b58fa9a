"""A top cell names its graphs to the cells below it when the name changes, and computes what any cell computes."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from pangu_alpha.model.top_cell import TopCell
from pangu_alpha.parallel.context import set_single_device_context


class Counting(nn.Cell):
    """Doubles, and counts how often it is told a graph's name."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply = ops.Mul()
        self.told: list[str] = []

    @property
    def compile_phase(self):
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, value):
        self.told.append(value)
        nn.Cell.compile_phase.fset(self, value)

    def construct(self, value):
        return self.multiply(value, 2.0)


class Doubled(TopCell):
    """The inner cell's result plus a number."""

    def __init__(self, inner: nn.Cell, more: float) -> None:
        super().__init__(auto_prefix=False)
        self.inner, self.more = inner, more

    def construct(self, value):
        return self.inner(value) + self.more


@pytest.fixture(autouse=True)
def on_the_cpu():
    set_single_device_context("cpu")


def test_the_name_is_told_once_for_each_graph():
    inner = Counting()
    cell = Doubled(inner, 1.0)
    one, two = Tensor(np.ones(3, np.float32)), Tensor(np.ones((2, 3), np.float32))
    for _ in range(3):
        assert cell(one).asnumpy().tolist() == [3.0] * 3
    assert len(inner.told) == 1
    assert cell(two).asnumpy().tolist() == [[3.0] * 3] * 2
    assert cell(two).asnumpy().tolist() == [[3.0] * 3] * 2
    assert len(inner.told) == len(set(inner.told)) == 2
    assert inner.compile_phase == cell.compile_phase == inner.told[-1]
    assert cell(one).asnumpy().tolist() == [3.0] * 3


def test_two_top_cells_share_a_cell():
    inner, value = Counting(), Tensor(np.ones(3, np.float32))
    first, second = Doubled(inner, 1.0), Doubled(inner, 5.0)
    for _ in range(2):
        assert first(value).asnumpy().tolist() == [3.0] * 3
        assert second(value).asnumpy().tolist() == [7.0] * 3
