"""MindSpore's own files: .ckpt (protobuf, or in parts of large tensors) and strategy files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.errors import PanguError


def read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a .ckpt file by name.

    Raises:
        PanguError: the file cannot be read, is cut short or damaged.
    """
    import mindspore

    if not path.is_file():
        raise PanguError(f"{path}: there is no such file")
    try:
        loaded = mindspore.load_checkpoint(str(path))
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise PanguError(f"{path} is no .ckpt that MindSpore can read, or is cut short ({reason.strip()})") from None
    return {name: parameter.asnumpy() for name, parameter in loaded.items()}


@dataclass(frozen=True)
class SliceLayout:
    """How one tensor was cut over ranks, as a strategy file tells it."""

    matrix: tuple[int, ...]
    """Devices along each axis of the device matrix."""
    axes: tuple[int, ...]
    """For each axis of the tensor the axis of the matrix that cuts it, counted from the right; -1: none."""
    shard_step: int
    """Ranks that are so far apart share what is left by its first axis; 0: they do not."""
    shard_size: int
    """How many of them do; -1: all."""

    @property
    def ranks(self) -> int:
        """Devices of the run."""
        return math.prod(self.matrix)

    def parts(self) -> tuple[int, ...]:
        """Parts along each axis, optimizer sharding included in the first."""
        parts = [1 if axis < 0 else self.matrix[-1 - axis] for axis in self.axes]
        if self.shard_step:
            parts[0] *= self._group()
        return tuple(parts)

    def cut(self, rank: int, stored: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of the whole tensor that a rank's piece of shape `stored` is."""
        place = np.unravel_index(rank, self.matrix)
        result = []
        for number, (size, axis) in enumerate(zip(stored, self.axes, strict=True)):
            index = 0 if axis < 0 else int(place[-1 - axis])
            if number == 0 and self.shard_step:
                group = self._group()
                index = index * group + rank // self.shard_step % group
            result.append(slice(size * index, size * (index + 1)))
        return tuple(result)

    def _group(self) -> int:
        return self.ranks // self.shard_step if self.shard_size < 0 else self.shard_size


def read_strategy(path: Path) -> dict[str, SliceLayout]:
    """How every tensor of a run was cut, by name.

    Raises:
        PanguError: the file is missing or no strategy file.
    """
    from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

    strategy: Any = ParallelStrategyMap()
    try:
        strategy.ParseFromString(path.read_bytes())
    except OSError as error:
        raise PanguError(f"{path}: the strategy file cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever protobuf raises
        raise PanguError(f"{path} is no strategy file ({error})") from None
    layouts = {
        item.param_name: SliceLayout(
            tuple(item.parallel_layouts.dev_matrix[0].dim),
            tuple(item.parallel_layouts.tensor_map[0].dim),
            item.parallel_layouts.opt_weight_shard_step,
            item.parallel_layouts.opt_weight_shard_size,
        )
        for item in strategy.parallel_layout_item
    }
    if not layouts:
        raise PanguError(f"{path} is no strategy file: it names no tensor")
    return layouts
