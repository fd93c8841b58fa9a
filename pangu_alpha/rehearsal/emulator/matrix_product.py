"""The seed of it all: one product of two matrices, cut over four devices by a strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.config import Config
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.interrupts import unbroken_import
from pangu_alpha.rehearsal.compile import CompileRequest, compile_ranks
from pangu_alpha.rehearsal.mindir import Node, read_mindir
from pangu_alpha.rehearsal.program import Program

DEVICES = 4
STRATEGIES = {
    "rows": ((4, 1), (1, 1)),
    "columns": ((1, 1), (1, 4)),
    "inner": ((1, 4), (4, 1)),
    "both": ((2, 1), (1, 2)),
}
"""Name -> parts of each axis of x and of w."""

LEFT = np.arange(16, dtype=np.float32).reshape(4, 4)
"""x [4, 4]."""
RIGHT = np.arange(16, dtype=np.float32).reshape(4, 4) % 5
"""w [4, 4]."""


@dataclass(frozen=True)
class DevicePart:
    """What one device does for the product.

    Attributes:
        left: its part of x.
        right: its part of w.
        product: their product.
        calls: its communication, as text.
        result: what it has in the end.
    """

    left: np.ndarray
    right: np.ndarray
    product: np.ndarray
    calls: Sequence[str]
    result: np.ndarray


def run_product(name: str, folder: Path, target: str = "ascend", at_once: int = 2) -> list[DevicePart]:
    """`x @ w` under `STRATEGIES[name]` on four devices: compiled for each, run together.

    Args:
        name: of the strategy.
        folder: where the ranks' files go.
        target: ascend or gpu.
        at_once: ranks that compile at a time.
    """
    with unbroken_import():
        from pangu_alpha.rehearsal.emulator.cluster import Cluster
        from pangu_alpha.rehearsal.emulator.interpreter import Rank
        from pangu_alpha.rehearsal.emulator.kernels import as_array, on_one_core, use_cpu_kernels

    config = dataclasses.replace(Config(), parallel=ParallelConfig(data_parallel=DEVICES))
    program = f"{__name__}:{name}"
    ranks = compile_ranks(
        [
            CompileRequest(config, rank, target, (folder / f"rank_{rank}").absolute(), "export", program)
            for rank in range(DEVICES)
        ],
        at_once,
    )
    use_cpu_kernels()
    cluster = Cluster([Rank(rank.rank, {"product": read_mindir(rank.graph)}, rank.groups) for rank in ranks])
    seen: dict[int, _Factors] = {}
    for rank in cluster.ranks:
        rank.kernels.observer = _Observer(rank.number, seen)
    with on_one_core():
        results = cluster.run("product", [LEFT])
    return [
        DevicePart(*seen[rank.number], [str(call) for call in rank.calls], as_array(result))
        for rank, result in zip(cluster.ranks, results, strict=True)
    ]


_Factors = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Observer:
    """Keeps what goes into the product and comes out of it."""

    def __init__(self, rank: int, seen: dict[int, _Factors]) -> None:
        self.rank, self.seen = rank, seen

    def __call__(self, node: Node, arguments: Sequence[Any], result: Any) -> None:
        if node.operator == "MatMul":
            self.seen[self.rank] = (arguments[0].asnumpy(), arguments[1].asnumpy(), result.asnumpy())


def _program(name: str, config: Config, target: str, rank: int) -> Program:  # noqa: ARG001 (what all programs take)
    import mindspore as ms
    from mindspore import Parameter, Tensor, nn, ops

    class Product(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.w = Parameter(Tensor(RIGHT), name="w")
            self.matmul = ops.MatMul().shard(STRATEGIES[name])

        def construct(self, x: Tensor) -> Tensor:
            return self.matmul(x, self.w)

    cell = Product()
    cell.set_train()
    return Program(cell, (Tensor(shape=LEFT.shape, dtype=ms.float32),))


rows = partial(_program, "rows")
"""Each device has some rows of x: data parallelism."""
columns = partial(_program, "columns")
"""Each device has some columns of w: the first product of a layer."""
inner = partial(_program, "inner")
"""Each has some columns of x and the rows of w that they meet; products are summed: the second one of a layer."""
both = partial(_program, "both")
"""Two times two devices: half of the rows of x, and half of the columns of w."""
