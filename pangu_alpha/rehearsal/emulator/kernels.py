"""Operators of a graph on MindSpore's CPU kernels, one by one; where there is no such kernel, by NumPy."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.ops.primitive import Primitive

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.mindir import ElementType, Node

PLACES: dict[str, tuple[int, ...]] = {
    "Assign": (0,),
    "AssignAdd": (0,),
    "AssignSub": (0,),
    "AdamWeightDecay": (0, 1, 2),
    "Adam": (0, 1, 2),
    "SGD": (0, 3, 5),
    "Momentum": (0, 1),
    "ApplyMomentum": (0, 1),
}
"""Operators that write -> which of their inputs they write to."""


def use_cpu_kernels() -> None:
    """Make this process run operators one by one on its CPU, each to its end: threads that hand on take far longer."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if ms.get_context("device_target") != "CPU":
        ms.set_device("CPU")
    ms.runtime.launch_blocking()


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Keep all threads of this process on the core that it is on now.

    Kernels hand parts of these small tensors to other threads and wait for them, which on a machine with other work
    takes many times as long as the operator (a product of 32 x 32: 2.7 ms instead of 0.1).
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    core = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[36])
    try:
        for thread in before:
            os.sched_setaffinity(thread, {core})
        yield
    finally:
        for thread in set(_threads()):
            os.sched_setaffinity(thread, before.get(thread, before[os.getpid()]))


def _threads() -> list[int]:
    return [int(thread.name) for thread in Path("/proc/self/task").iterdir()]


def as_array(value: Any) -> np.ndarray:
    """A tensor or number as a NumPy array that nobody writes to."""
    array: np.ndarray = value.asnumpy() if isinstance(value, Tensor) else np.asarray(value)
    return array


def as_value(constant: Any) -> Any:
    """A constant of a graph as kernels take it."""
    if isinstance(constant, np.ndarray):
        return Tensor(constant)
    if isinstance(constant, ElementType):
        return getattr(ms, constant.name)
    if isinstance(constant, (tuple, list)):
        return type(constant)(as_value(item) for item in constant)
    return constant


class Kernels:
    """What runs the operators of one rank.  Tensors that it gets and gives are never written to.

    Attributes:
        counts: how often each operator ran.
        observer: called with each node that only reads, its arguments and its result; None for nobody.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.counts: Counter[str] = Counter()
        self.observer: Callable[[Node, Sequence[Any], Any], None] | None = None
        self._primitives: dict[tuple[int, str], Primitive] = {}
        self._draws: Counter[tuple[str, str]] = Counter()

    def run(self, node: Node, arguments: Sequence[Any]) -> Any:
        """Result of an operator that only reads.

        Raises:
            PanguError: no kernel takes it.
        """
        self.counts[node.operator] += 1
        special = _BY_NUMPY.get(node.operator)
        if node.operator == "Dropout":
            result: Any = self._dropout(node, arguments)
        else:
            result = special(arguments) if special is not None else self._launch(node, arguments)
        if self.observer is not None:
            self.observer(node, arguments, result)
        return result

    def write(self, node: Node, arguments: Sequence[Any]) -> list[Any]:
        """New values of what an operator of PLACES writes to, in that order."""
        self.counts[node.operator] += 1
        if node.operator == "Assign":
            return [arguments[1]]
        if node.operator in ("AssignAdd", "AssignSub"):
            sign = 1 if node.operator == "AssignAdd" else -1
            total = as_array(arguments[0]) + sign * as_array(arguments[1])
            return [Tensor(total.astype(as_array(arguments[0]).dtype, copy=False))]
        places = PLACES[node.operator]
        copies = list(arguments)
        for place in places:
            copies[place] = Parameter(Tensor(as_array(arguments[place]).copy()), name=f"place{place}")
        self._launch(node, copies)
        return [Tensor(copies[place].asnumpy().copy()) for place in places]

    def _launch(self, node: Node, arguments: Sequence[Any]) -> Any:
        # Nodes with equal primitives share one; it is told apart by identity, as two graphs may use one name twice.
        key = (id(node.attributes), node.operator)
        primitive = self._primitives.get(key)
        if primitive is None:
            primitive = self._primitives[key] = _primitive(node)
        try:
            return primitive(*arguments)
        except Exception as error:
            shapes = [getattr(argument, "shape", argument) for argument in arguments]
            raise PanguError(
                f"rank {self.rank}: no CPU kernel does {node.operator} of {shapes} ({node.scope}): "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
            ) from error

    def _dropout(self, node: Node, arguments: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Masks from the seeds and the number of the execution; with seeds 0 each rank has masks of its own.

        Not by the CPU kernel: its generator is one for the process, so that ranks with equal seeds, which must draw
        the same mask, would draw different ones.
        """
        value = as_array(arguments[0])
        rate = float(as_array(arguments[1])) if len(arguments) > 1 else float(node.attributes["keep_prob"])
        seeds = [int(as_array(seed)) for seed in arguments[2:4]]
        place = (node.scope, node.output)
        draw = self._draws[place]
        self._draws[place] += 1
        key = seeds if any(seeds) else [self.rank + 1, zlib.crc32(node.scope.encode())]
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*key, draw])))
        mask = (generator.random(value.shape, np.float32) < rate).astype(value.dtype)
        return Tensor(value * mask / value.dtype.type(rate)), Tensor(mask)


def _primitive(node: Node) -> Primitive:
    primitive = Primitive(node.operator)
    for name, value in node.attributes.items():
        if value is not None and not isinstance(value, (ElementType, np.ndarray)):
            primitive.add_prim_attr(name, list(value) if isinstance(value, tuple) else value)
    return primitive


def _is_finite(value: Any) -> bool:
    return bool(np.isfinite(as_array(value)).all())


def _all_finite(arguments: Sequence[Any]) -> Tensor:
    """AllFinite is True where something is NOT finite."""
    values = arguments[0] if isinstance(arguments[0], (tuple, list)) else arguments
    return Tensor(not all(_is_finite(value) for value in values))


_BY_NUMPY: dict[str, Callable[[Sequence[Any]], Any]] = {
    "Shape": lambda arguments: tuple(arguments[0].shape),
    "FloatStatus": lambda arguments: Tensor(np.array([not _is_finite(arguments[0])], np.float32)),
    "AllFinite": _all_finite,
}
