"""The most memory that a graph's tensors take at once, found by walking it.

Method.  Operators run in the order in which the compiler lists them, but those of the backward pass as soon as they
can: the list puts gradients of weights behind all else, and devices, which take what is ready, do not.  A pipeline's
calls of forward and backward functions keep their order, which the graph prescribes.

A tensor lives from the operator that makes it to the last one that reads it. A view (Reshape, Load, Depend, a tuple
and its parts …) and what an operator writes in place (Assign, the optimizer) are the tensor they are made from.
Parameters and constants take nothing here; they are counted apart. A function that is called adds the peak of its own
tensors while it runs, and afterwards what it gives back: for the forward function of a micro batch that is all that
its backward function will read. So the order of forward and backward calls decides how many micro batches are kept at
once.

Not counted: workspace of kernels, buffers of collectives, what a memory pool loses to fragments.  Not deducted: what
fused kernels never write.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from pangu_alpha.rehearsal.calls import Calls, bytes_of
from pangu_alpha.rehearsal.mindir import CALL, Function, Node, TensorType, Type

_VIEWS = frozenset(
    ("Reshape", "Flatten", "ExpandDims", "Squeeze", "Load", "Depend", "Return", "StopGradient", "Identity")
)
_IN_PLACE = frozenset(
    (
        "Assign", "AssignAdd", "AssignSub", "AdamWeightDecay", "Adam", "AdamW", "FusedAdamWeightDecay", "ApplyMomentum",
        "SGD", "Momentum", "Lamb",
    )
)  # fmt: skip


@dataclass(frozen=True)
class _Closure:
    """A function with the values of its first arguments."""

    function: str
    captured: tuple[_Held, ...]


_Held = frozenset[int] | tuple["_Held", ...] | _Closure
"""Which storages a value holds; a negative number -1 - i stands for whatever argument i of the function holds."""

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Peak:
    """What the tensors of one call of a function take.

    Attributes:
        bytes: the most at once, results included.
        result_bytes: what stays when it has ended.
        scope: of the operator at which the peak stood.
        kept_bytes: for each micro batch, what its forward pass keeps for its backward pass; 0 without such functions.
        kept_at_once: of how many micro batches at a time.
    """

    bytes: int
    result_bytes: int
    scope: str
    kept_bytes: int = 0
    kept_at_once: int = 0


def peak_of_step(calls: Calls, bit_masks: bool) -> Peak:
    """The peak of one step's tensors.

    Args:
        calls: of the rank's graph.
        bit_masks: whether the device's Dropout stores one bit an element (Ascend) instead of a whole one.
    """
    return _Walk(calls, bit_masks).summary(calls.graph.main).peak


@dataclass(frozen=True)
class _Summary:
    """A function once walked: its peak, what it gives back, and the size of each new storage in that."""

    peak: Peak
    result: _Held
    sizes: dict[int, int]


class _Walk:
    """Walks functions, each once: what it finds holds for every call."""

    def __init__(self, calls: Calls, bit_masks: bool) -> None:
        self.calls, self.bit_masks = calls, bit_masks
        self._summaries: dict[str, _Summary] = {}

    def summary(self, function: Function) -> _Summary:
        """What a call of `function` takes, whatever its arguments hold."""
        if function.name not in self._summaries:
            self._summaries[function.name] = _FunctionWalk(self, function).summary()
        return self._summaries[function.name]


class _FunctionWalk:
    """The walk through one function: which storages live, and until when."""

    def __init__(self, walk: _Walk, function: Function) -> None:
        self.walk, self.function = walk, function
        self.nodes = _execution_order(function)
        self.held: dict[str, _Held] = {name: frozenset((-1 - i,)) for i, name in enumerate(function.inputs)}
        self.sizes: dict[int, int] = {}
        self.live = 0
        self._dies: dict[int, int] = {}
        self._dying: dict[int, list[int]] = defaultdict(list)
        self._last_use, self._last_part_use = _last_uses(function.result, self.nodes, walk.calls)
        self._call_of: dict[int, int] = {}
        self._kept_of_call: Counter[int] = Counter()
        self._kept_bytes = self._kept_at_once = 0

    def summary(self) -> _Summary:
        most, scope = 0, ""
        for position, node in enumerate(self.nodes):
            held, inside = self._run(position, node)
            if self.live + inside > most:
                most, scope = self.live + inside, node.scope
            self.held[node.output] = held
            self._keep(node.output, held, position)
            for storage in self._dying.pop(position, ()):
                if self._dies[storage] == position:
                    self._free(storage)
        result = self.held.get(self.function.result, _NOTHING)
        left = {storage: self.sizes[storage] for storage in _storages(result) if storage >= 0}
        peak = Peak(most, sum(left.values()), scope, self._kept_bytes, self._kept_at_once)
        return _Summary(peak, result, left)

    def _keep(self, value: str, held: _Held, position: int) -> None:
        """Let the storages of a new value live until its last reader."""
        until = max(position, self._last_use.get(value, position))
        uses = self._last_part_use.get(value, {})
        if isinstance(held, tuple):
            for index, part in enumerate(held):
                self._live_until(part, max(until, uses.get(index, position)))
        else:
            self._live_until(held, max([until, *uses.values()]))

    def _live_until(self, held: _Held, position: int) -> None:
        for storage in _storages(held):
            if storage >= 0 and position > self._dies.get(storage, -1):
                self._dies[storage] = position
                self._dying[position].append(storage)

    def _run(self, position: int, node: Node) -> tuple[_Held, int]:
        """What the value of `node` holds, and what else is taken while it runs."""
        inputs = node.inputs
        if node.operator == CALL:
            return self._call(position, self._of(node.callee), tuple(map(self._of, inputs)))
        if node.operator == "UpdateState":
            return _NOTHING, 0
        if node.operator == "MakeTuple":
            return tuple(map(self._of, inputs)), 0
        if node.operator == "TupleGetItem":
            whole = self._of(inputs[0])
            return (whole[self.walk.calls.index(node)] if isinstance(whole, tuple) else whole), 0
        if node.operator == "Partial":
            inner = self._of(inputs[0])
            if not isinstance(inner, _Closure):
                return _NOTHING, 0
            return _Closure(inner.function, (*inner.captured, *map(self._of, inputs[1:]))), 0
        if node.operator == "Switch":
            return tuple(map(self._of, inputs[1:3])), 0
        if node.operator in _VIEWS or node.operator in _IN_PLACE:
            return (self._of(inputs[0]) if inputs else _NOTHING), 0
        if isinstance(node.type, tuple):
            return tuple(frozenset((self._take(size),)) for size in self._sizes(node, node.type)), 0
        return frozenset((self._take(bytes_of(node.type)),)), 0

    def _of(self, value: str) -> _Held:
        if value in self.walk.calls.graph.functions:
            return _Closure(value, ())
        return self.held.get(value, _NOTHING)  # parameters and constants hold nothing

    def _sizes(self, node: Node, kinds: tuple[Type, ...]) -> list[int]:
        sizes = [bytes_of(kind) for kind in kinds]
        if node.operator == "Dropout" and self.walk.bit_masks and isinstance(kinds[-1], TensorType):
            sizes[-1] = -(-prod(kinds[-1].shape) // 8)
        return sizes

    def _call(self, position: int, callee: _Held, arguments: tuple[_Held, ...]) -> tuple[_Held, int]:
        branches = callee if isinstance(callee, tuple) else (callee,)
        closures = [branch for branch in branches if isinstance(branch, _Closure)]
        if not closures:
            return _NOTHING, 0
        functions = [self.walk.calls.graph.functions[closure.function] for closure in closures]
        # Branches of a condition give back values of one form: those of the first stand for both.
        summary = self.walk.summary(functions[0])
        most = max(self.walk.summary(function).peak.bytes for function in functions)
        new = {storage: self._take(size) for storage, size in summary.sizes.items()}
        captured = {new[storage] for storage in _captured(summary.result) if storage >= 0}
        if captured:
            self._kept_bytes = max(self._kept_bytes, sum(self.sizes[storage] for storage in captured))
            self._call_of.update(dict.fromkeys(captured, position))
            self._kept_of_call[position] = len(captured)
            self._kept_at_once = max(self._kept_at_once, len(+self._kept_of_call))
        result = _replace(summary.result, new, (*closures[0].captured, *arguments))
        return result, max(0, most - summary.peak.result_bytes)  # what is given back lives already

    def _take(self, size: int) -> int:
        storage = len(self.sizes)
        self.sizes[storage] = size
        self.live += size
        return storage

    def _free(self, storage: int) -> None:
        self.live -= self.sizes[storage]
        if storage in self._call_of:
            self._kept_of_call[self._call_of[storage]] -= 1


def _execution_order(function: Function) -> list[Node]:
    """The nodes of a function as they run, see the module."""
    if sum(node.operator == CALL for node in function.nodes) > 1:
        return list(function.nodes)
    makers = {node.output for node in function.nodes}
    waits_for = {node.output: {value for value in node.inputs if value in makers} for node in function.nodes}
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in function.nodes:
        for value in waits_for[node.output]:
            readers[value].append(node)
    order: list[Node] = []
    done: set[str] = set()
    for listed in function.nodes:
        ready = deque([listed] if listed.output not in done else [])
        while ready:
            node = ready.popleft()
            order.append(node)
            done.add(node.output)
            for reader in readers[node.output]:
                waits_for[reader.output].discard(node.output)
                if not waits_for[reader.output] and reader.scope.startswith("Gradients/"):
                    ready.append(reader)
    return order


def _last_uses(result: str, nodes: Sequence[Node], calls: Calls) -> tuple[dict[str, int], dict[str, dict[int, int]]]:
    """Value -> position of the last node that reads it; and of the last that takes each of its parts."""
    whole = {result: len(nodes)}
    parts: dict[str, dict[int, int]] = defaultdict(dict)
    for position, node in enumerate(nodes):
        if node.operator == "TupleGetItem":
            parts[node.inputs[0]][calls.index(node)] = position
            continue
        for value in _read(node):
            whole[value] = max(position, whole.get(value, 0))
    return whole, parts


def _read(node: Node) -> Iterator[str]:
    """Values whose memory a node reads; the others only say what must have happened before."""
    if node.operator == "UpdateState":
        return
    if node.operator == CALL:
        yield node.callee
    yield from node.inputs[:1] if node.operator in ("Depend", "Load") else node.inputs


def _captured(held: _Held) -> Iterator[int]:
    """Storages that closures within a value hold."""
    if isinstance(held, _Closure):
        yield from _storages(held)
    elif isinstance(held, tuple):
        for part in held:
            yield from _captured(part)


def _storages(held: _Held) -> Iterator[int]:
    if isinstance(held, _Closure):
        for part in held.captured:
            yield from _storages(part)
    elif isinstance(held, tuple):
        for part in held:
            yield from _storages(part)
    else:
        yield from held


def _replace(held: _Held, new: dict[int, int], given: tuple[_Held, ...]) -> _Held:
    """What a function gives back, in the caller's storages."""
    if isinstance(held, _Closure):
        return _Closure(held.function, tuple(_replace(part, new, given) for part in held.captured))
    if isinstance(held, tuple):
        return tuple(_replace(part, new, given) for part in held)
    if len(held) == 1 and (only := next(iter(held))) < 0:
        return given[-1 - only] if -1 - only < len(given) else _NOTHING
    found: set[int] = set()
    for storage in held:
        if storage >= 0:
            found.add(new[storage])
        elif -1 - storage < len(given):
            found.update(_storages(given[-1 - storage]))
    return frozenset(found)
