from __future__ import annotations

import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.rehearsal.emulator.kernels import Kernels, as_value, on_one_core, use_cpu_kernels
from pangu_alpha.rehearsal.mindir import ElementType
from tests.rehearsal.emulator.hand_built import node


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="an operating system without core affinity")
def test_one_core_and_back():
    use_cpu_kernels()
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), on_one_core():
        assert len(os.sched_getaffinity(0)) == 1
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


def test_constants():
    assert as_value((1, [ElementType("float16")])) == (1, [ms.float16])
    assert as_value(np.array([1, 2], np.int32)).dtype == ms.int32


@pytest.mark.parametrize(("operator", "expected"), [("AssignAdd", [5, 7]), ("AssignSub", [-3, -3]), ("Assign", [4, 5])])
def test_writing_leaves_what_was_read_alone(operator, expected):
    use_cpu_kernels()
    old, given = Tensor(np.array([1, 2], np.float32)), Tensor(np.array([4, 5], np.float32))
    (new,) = Kernels(0).write(node(operator, ["p", "x"], "y"), [old, given])
    assert new.asnumpy().tolist() == expected
    assert old.asnumpy().tolist() == [1, 2]


def test_an_optimizers_kernel_gives_all_that_it_wrote():
    """AdamWeightDecay against its formula (train/optimizer.py)."""
    use_cpu_kernels()
    weight, first, second = (np.array(values, np.float32) for values in ([1, -2], [0.5, 0.5], [0.25, 0.25]))
    gradient = np.array([0.1, -0.2], np.float32)
    scalars = [Tensor(value, ms.float32) for value in (0.01, 0.9, 0.95, 1e-8, 0.1)]
    arguments = [Tensor(weight), Tensor(first), Tensor(second), *scalars, Tensor(gradient), True]
    written = Kernels(0).write(node("AdamWeightDecay", [], "y"), arguments)
    first = 0.9 * first + 0.1 * gradient
    second = 0.95 * second + 0.05 * gradient**2
    weight = weight - 0.01 * (first / (np.sqrt(second) + 1e-8) + 0.1 * weight)
    for value, expected in zip(written, (weight, first, second), strict=True):
        np.testing.assert_allclose(value.asnumpy(), expected, rtol=1e-6)
