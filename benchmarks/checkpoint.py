"""Saving and loading a checkpoint against plain sequential file I/O of the same bytes, and what a step waits for.

Limits it is held to: save and load at 0.8 of plain I/O, a step's wait at 1.2 of a copy of the state, hashing at
5 % of a save.  Both sides flush to the disk; loads are from a warm cache on both sides.  Rounds alternate.

    python benchmarks/checkpoint.py [megabytes]
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe_machine
from mindspore import Parameter, Tensor

from pangu_alpha.checkpoint.checksum import checksum_of
from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.parameters import parameter_arrays
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config

ROUNDS = 5


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def write_plainly(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The same bytes, one after the other, flushed."""
    with path.open("wb") as file:
        for array in arrays.values():
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def read_plainly(path: Path) -> None:
    """The same bytes into arrays."""
    np.fromfile(path, np.uint8)


def main() -> None:
    """Measure and print."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    generator = np.random.default_rng(1)
    count = max(1, megabytes // 20)
    arrays = {f"blocks.{number}.weight": generator.random((5_000_000,), np.float32) for number in range(count)}
    parameters = [Parameter(Tensor(array), name=name) for name, array in arrays.items()]
    size = sum(array.nbytes for array in arrays.values())
    print(f"machine: {dataclasses.asdict(describe_machine())}\n{size / 1e6:.0f} MB in {count} tensors\n")
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def save() -> None:
            save_checkpoint(folder / "checkpoints", 1, arrays, {}, Config(), "f" * 64)

        def load() -> None:
            for _ in Checkpoint(folder / "checkpoints" / "step_00000001").tensors():
                pass

        for _ in range(ROUNDS):
            measured = {
                "plain write": timed(lambda: write_plainly(folder / "plain", arrays)),
                "save": timed(save),
                "plain read": timed(lambda: read_plainly(folder / "plain")),
                "load": timed(load),
                "memory copy": timed(lambda: [array.copy() for array in arrays.values()]),
                "a step waits": timed(lambda: parameter_arrays(parameters)),
                "one checksum": timed(lambda: [checksum_of(array.view(np.uint8).data) for array in arrays.values()]),
            }
            for key, value in measured.items():
                times.setdefault(key, []).append(value)
    medians = {key: statistics.median(values) for key, values in times.items()}
    for key, value in medians.items():
        print(f"{key:12} {value:7.3f} s  {size / 1e6 / value:8,.0f} MB/s")
    print(f"\nsave: {medians['plain write'] / medians['save']:.2f} of plain I/O (limit 0.8)")
    print(f"load, every checksum verified: {medians['plain read'] / medians['load']:.2f} of plain I/O (limit 0.8)")
    share = 2 * medians["one checksum"] / medians["save"]
    print(f"checksums of tensors and files take {share:.0%} of a save's time, beside the writing (limit 5 %)")
    print(f"a step waits {medians['a step waits'] / medians['memory copy']:.2f} of a copy of the state (limit 1.2)")


if __name__ == "__main__":
    main()
