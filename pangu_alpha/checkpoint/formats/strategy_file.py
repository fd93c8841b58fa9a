"""MindSpore's strategy files: how each parameter was cut over the ranks of a run.

Read from the wire form, so that nothing here waits for MindSpore; fields as in its `node_strategy.proto`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.formats import protobuf
from pangu_alpha.errors import PanguError
from pangu_alpha.files import storage_error


@dataclass(frozen=True)
class SavedLayout:
    """How one parameter was cut."""

    devices: tuple[int, ...]
    """Axes of the device matrix, in row order of the ranks."""
    axes: tuple[int, ...]
    """For each axis of the parameter: the device axis that cuts it, counted from the right; -1 for none."""
    shard_step: int = 0
    """Optimizer sharding: distance of the ranks that share the first axis further; 0 for none."""
    shard_size: int = -1
    """How many they are; -1 for all."""

    @property
    def ranks(self) -> int:
        """Ranks of the run."""
        return math.prod(self.devices)

    @property
    def shards(self) -> int:
        """Parts into which optimizer sharding cuts the first axis."""
        if not self.shard_step:
            return 1
        return self.shard_size if self.shard_size > 0 else self.ranks // self.shard_step

    def full_shape(self, held: tuple[int, ...]) -> tuple[int, ...]:
        """The parameter's shape, given that of the part which a rank holds."""
        parts = [1 if axis < 0 else self.devices[-1 - axis] for axis in self.axes]
        shape = [size * count for size, count in zip(held, parts, strict=True)]
        if shape:
            shape[0] *= self.shards
        return tuple(shape)

    def part(self, held: tuple[int, ...], rank: int) -> tuple[slice, ...]:
        """Which part of the parameter `rank` holds: model parallelism cuts first, optimizer sharding what is left."""
        place = np.unravel_index(rank, self.devices)
        bounds = []
        for number, (size, axis) in enumerate(zip(held, self.axes, strict=True)):
            shards = self.shards if number == 0 else 1
            begin = 0 if axis < 0 else int(place[-1 - axis]) * size * shards
            if shards > 1:
                begin += rank // self.shard_step % shards * size
            bounds.append(slice(begin, begin + size))
        return tuple(bounds)


def read_strategy(path: Path) -> dict[str, SavedLayout]:
    """The layout of every parameter in a strategy file.

    Raises:
        PanguError: the file cannot be read or is no strategy file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise storage_error(error, path, "read") from None
    layouts: dict[str, SavedLayout] = {}
    try:
        for number, start, stop in protobuf.fields(content, 0, len(content)):
            if number == 3:
                name, layout = _layout_item(content, start, stop)
                layouts[name] = layout
    except (protobuf.CutShortError, protobuf.NotProtobufError, UnicodeDecodeError, ValueError):
        raise PanguError(f"{path}: no strategy file of MindSpore, or a damaged one; get it again") from None
    if not layouts:
        raise PanguError(f"{path}: the strategy file says of no parameter how it was cut; get it again")
    return layouts


def _layout_item(content: bytes, start: int, stop: int) -> tuple[str, SavedLayout]:
    name, step, size = "", 0, -1
    devices: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    for number, first, second in protobuf.fields(content, start, stop):
        if number == 1:
            name = content[first:second].decode()
        elif number == 2:
            for inner, a, b in protobuf.fields(content, first, second):
                if inner == 1:
                    devices = devices or _dims(content, a, b)
                elif inner == 2:
                    axes = axes or _dims(content, a, b)
                elif inner == 6:
                    step = protobuf.integers(content, [(a, b)])[0]
                elif inner == 7:
                    size = protobuf.integers(content, [(a, b)])[0]
    if not name or not devices:
        raise protobuf.NotProtobufError
    return name, SavedLayout(tuple(devices), tuple(axes), step, size)


def _dims(content: bytes, start: int, stop: int) -> tuple[int, ...]:
    return tuple(
        protobuf.integers(content, [(a, b) for number, a, b in protobuf.fields(content, start, stop) if number == 1])
    )
