"""From a checkpoint into parameters and back."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.parameters import fill_parameters, parameter_arrays
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.errors import PanguError


def parameters(value: float, dtype=ms.float32) -> list[Parameter]:
    return [
        Parameter(Tensor(np.full((2, 3), value), dtype), name="weight"),
        Parameter(Tensor(value, ms.float32), name="loss_scale"),
        Parameter(Tensor([int(value)], ms.int32), name="global_step"),
    ]


def save(directory: Path, value: float, dtype=ms.float32) -> Checkpoint:
    return Checkpoint(save_checkpoint(directory, 1, parameter_arrays(parameters(value, dtype)), {}, Config(), "00"))


def test_values_shapes_and_types_come_back(tmp_path: Path) -> None:
    targets = parameters(0.0)
    fill_parameters(targets, save(tmp_path, 7.0), Config())
    for target, expected in zip(targets, parameters(7.0), strict=True):
        assert (target.dtype, target.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(target.asnumpy(), expected.asnumpy())


def test_float16_fills_float32_exactly(tmp_path: Path) -> None:
    targets = parameters(0.0)
    fill_parameters(targets, save(tmp_path, 0.1, ms.float16), Config())
    assert targets[0].dtype == ms.float32
    assert targets[0].asnumpy()[0, 0] == np.float32(np.float16(0.1))


def test_nothing_is_filled_unless_everything_fits(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 7.0)
    targets = [*parameters(0.0), Parameter(Tensor(np.zeros(2), ms.float32), name="new")]
    with pytest.raises(PanguError, match=r"tensor new of shape \[2\]"):
        fill_parameters(targets, checkpoint, Config())
    assert not targets[0].asnumpy().any()
    with pytest.raises(PanguError, match="no place here"):
        fill_parameters(parameters(0.0)[:1], checkpoint, Config())
    fill_parameters(parameters(0.0)[:1], checkpoint, Config(), exact=False)


def test_arrays_are_copies() -> None:
    source = parameters(1.0)
    arrays = parameter_arrays(source)
    source[0].set_data(Tensor(np.full((2, 3), 5.0), ms.float32))
    source[1] += 1
    assert (arrays["weight"] == 1.0).all()
    assert arrays["loss_scale"].shape == ()
    assert arrays["loss_scale"] == 1.0
