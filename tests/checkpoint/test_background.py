"""Saving in the background: values changed after the call never reach the file, and errors reach the caller."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.background import BackgroundSaver
from pangu_alpha.checkpoint.load import Checkpoint, list_checkpoints
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.errors import PanguError


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], **options) -> Path:
    return save_checkpoint(folder, step, arrays, {"step": step}, Config(), "f" * 64, **options)


def test_the_caller_goes_on_and_is_told_when_it_is_complete(tmp_path: Path) -> None:
    saver, gate = BackgroundSaver(), threading.Event()

    def slowly() -> Path:
        gate.wait(10)
        return save(tmp_path, 1, {"a": np.ones(3, np.float32)})

    assert saver.start(slowly) is None
    assert saver.finished() is None and not list_checkpoints(tmp_path)  # not announced before it is there
    gate.set()
    assert saver.start(lambda: save(tmp_path, 2, {"a": np.zeros(3, np.float32)})) == tmp_path / "step_00000001"
    assert saver.wait() == tmp_path / "step_00000002"
    assert saver.wait() is None and saver.finished() is None
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000002", "step_00000001"]


def test_an_error_reaches_the_caller_once(tmp_path: Path) -> None:
    saver = BackgroundSaver()

    def fail() -> Path:
        raise PanguError("cannot write: no space")

    saver.start(fail)
    with pytest.raises(PanguError, match="no space"):
        saver.wait()
    assert saver.wait() is None
    saver.start(fail)
    saver.settle()
    assert saver.wait() is None


def test_parameters_that_change_meanwhile_do_not_reach_the_file(tmp_path: Path) -> None:
    from mindspore import Parameter, Tensor

    from pangu_alpha.checkpoint.parameters import parameter_arrays

    parameter = Parameter(Tensor(np.ones(1000, np.float32)), name="a")
    saver, gate = BackgroundSaver(), threading.Event()
    arrays = parameter_arrays([parameter])

    def slowly() -> Path:
        gate.wait(10)
        return save(tmp_path, 1, arrays)

    saver.start(slowly)
    parameter.set_data(Tensor(np.full(1000, 7, np.float32)))
    gate.set()
    path = saver.wait()
    assert path is not None
    ((_, value),) = Checkpoint(path).tensors()
    assert (value == 1).all()


def test_pinned_checkpoints_stay(tmp_path: Path) -> None:
    for step in range(1, 9):
        save(tmp_path, step, {"a": np.ones(1, np.float32)}, keep=2, pinned={2, 3, 6} if step < 8 else {3, 6})
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["8", "7", "6", "3"]
