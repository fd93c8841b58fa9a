"""One rank: a generator over its graph that pauses wherever it needs what another rank has not given yet."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence, Set
from typing import Any

import numpy as np
from mindspore import Tensor

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.emulator.communication import COLLECTIVES, COMMUNICATION, RECEIVE, SEND, Call, Network
from pangu_alpha.rehearsal.emulator.kernels import PLACES, Kernels, as_array, as_value
from pangu_alpha.rehearsal.emulator.values import Closure, Future, Reference
from pangu_alpha.rehearsal.mindir import CALL, MONAD, Function, MindIR, Node

Execution = Generator[Future, None, Any]
"""A run of a function: yields what it waits for; its return value is the result."""

_WORLD = ("hccl_world_group", "nccl_world_group")


class _Prepared:
    """A function with its values numbered: `nodes` as (node, numbers of the inputs, number of the output)."""

    __slots__ = ("inputs", "nodes", "result", "start")

    def __init__(self, function: Function, known: dict[str, Any]) -> None:
        numbers: dict[str, int] = {}
        self.start: list[Any] = []

        def number(name: str) -> int:
            if name not in numbers:
                numbers[name] = len(self.start)
                self.start.append(known.get(name))
            return numbers[name]

        self.inputs = [number(name) for name in function.inputs]
        self.nodes = []
        for node in function.nodes:
            inputs = [number(name) for name in node.inputs]
            if node.operator == CALL:
                inputs.insert(0, number(node.callee))
            self.nodes.append((node, inputs, number(node.output)))
        self.result = number(function.result)


class Rank:
    """One rank's parameters and the programs that it runs on them.

    Programs share parameters by name.

    Raises:
        PanguError: a graph has no parameter data, or two programs cut a parameter differently.

    Attributes:
        number: which rank.
        parameters: current value of each, as tensors that are never written to.
        kernels: what runs the operators.
        calls: communication operators that it came to since this list was last cleared, in order.
    """

    def __init__(self, number: int, programs: dict[str, MindIR], groups: dict[str, tuple[int, ...]]) -> None:
        self.number = number
        self.programs = programs
        self.groups = groups
        self.parameters: dict[str, Tensor] = {}
        self.kernels = Kernels(number)
        self.calls: list[Call] = []
        self._known: dict[str, dict[str, Any]] = {}
        self._prepared: dict[int, _Prepared] = {}
        for name, program in programs.items():
            known: dict[str, Any] = {key: as_value(value) for key, value in program.constants.items()}
            known |= {key: Closure(function) for key, function in program.functions.items()}
            for key, parameter in program.parameters.items():
                known[key] = Reference(parameter.name)
                if parameter.data is None:
                    raise PanguError(f"rank {number}: parameter {parameter.name} has no data; compile with mode export")
                shared = self.parameters.setdefault(parameter.name, Tensor(parameter.data))
                if shared.shape != parameter.type.shape:
                    raise PanguError(
                        f"rank {number}: programs cut parameter {parameter.name} differently: {shared.shape}, and "
                        f"{parameter.type.shape} in {name}"
                    )
            self._known[name] = known
            for function in (program.main, *program.functions.values()):
                self._prepared[id(function)] = _Prepared(function, known)

    def scopes(self, program: str) -> dict[tuple[str, int], frozenset[str]]:
        """(group, this rank) -> scopes of the collectives that a program has there."""
        found: dict[tuple[str, int], set[str]] = {}
        for node in self._nodes(program, COLLECTIVES):
            found.setdefault((node.attributes["group"], self.number), set()).add(node.scope)
        return {key: frozenset(scopes) for key, scopes in found.items()}

    def messages(self, program: str) -> set[tuple[str, int, str, int]]:
        """All sends and receives of a program: (operator, the other's rank, group, tag)."""
        return {
            (node.operator, _peer(node), node.attributes["group"], node.attributes.get("sr_tag", 0))
            for node in self._nodes(program, {SEND, RECEIVE})
        }

    def _nodes(self, program: str, operators: Set[str]) -> Iterator[Node]:
        graph = self.programs[program]
        for function in (graph.main, *graph.functions.values()):
            yield from (node for node in function.nodes if node.operator in operators)

    def start(self, program: str, arguments: Sequence[np.ndarray], network: Network) -> Execution:
        """Run a program with the rank's rows as its arguments."""
        main = self.programs[program].main
        result = yield from self._run(main, [Tensor(array) for array in arguments], network)
        return (yield from self._settle(result))

    def _run(self, function: Function, arguments: Sequence[Any], network: Network) -> Execution:
        prepared = self._prepared[id(function)]
        values = prepared.start.copy()
        for number, argument in zip(prepared.inputs, arguments, strict=False):  # a monad may be left out
            values[number] = argument
        for node, inputs, output in prepared.nodes:
            operator = node.operator
            given = [values[number] for number in inputs]
            if operator in _FORMS:
                value = _FORMS[operator](self, given)
                if isinstance(value, Generator):
                    value = yield from value
            elif operator == CALL:
                closure = given[0]
                if type(closure) is Future:
                    closure = yield from self._settle(closure)
                value = yield from self._run(closure.function, [*closure.arguments, *given[1:]], network)
            else:
                settled = []
                for argument in given:
                    if type(argument) is Tensor:
                        settled.append(argument)
                    elif argument is not MONAD:
                        settled.append((yield from self._settle(argument)))
                if operator in COMMUNICATION:
                    value = self._communicate(node, settled, network)
                elif operator in PLACES:
                    value = self._write(node, given, settled)
                elif node.attributes.get("side_effect_mem"):
                    raise PanguError(f"rank {self.number}: the emulator does not know where {operator} writes to")
                else:
                    value = self.kernels.run(node, settled)
            values[output] = value
        return values[prepared.result]

    def _settle(self, value: Any) -> Execution:
        """A value that is there: futures waited for, parameters read."""
        kind = type(value)
        if kind is Future:
            while not value.done:
                yield value
            if type(value.value) is np.ndarray:
                value.value = Tensor(value.value)
            return value.value
        if kind is Reference:
            return self.parameters[value.name] if value.value is None else value.value
        if kind is tuple or kind is list:
            parts = []
            for part in value:
                parts.append(part if type(part) is Tensor else (yield from self._settle(part)))
            return kind(parts)
        return value

    def _depend(self, given: Sequence[Any]) -> Execution:
        # Stricter than devices, which may only keep the order: what does not stand still here does not there.
        yield from self._settle(given[1])
        return given[0]

    def _update_state(self, given: Sequence[Any]) -> Execution:
        for value in given[1:]:
            yield from self._settle(value)
        return MONAD

    def _load(self, given: Sequence[Any]) -> Execution:
        value = given[0]
        if type(value) is Reference:
            return Reference(value.name, (yield from self._settle(value)))
        return value

    def _item(self, given: Sequence[Any]) -> Execution:
        values = given[0]
        if type(values) is Future:
            values = yield from self._settle(values)
        return values[int(given[1])]

    def _switch(self, given: Sequence[Any]) -> Execution:
        condition = yield from self._settle(given[0])
        return given[1] if bool(as_array(condition).all()) else given[2]

    def _write(self, node: Node, given: Sequence[Any], settled: list[Any]) -> Any:
        results = self.kernels.write(node, settled)
        written = []
        for place, value in zip(PLACES[node.operator], results, strict=True):
            target = given[place]
            if type(target) is Reference:
                self.parameters[target.name] = value
                written.append(Reference(target.name, value))
            else:
                written.append(value)  # of a temporary nobody reads the old value
        return written[0] if len(written) == 1 else tuple(written)

    def _communicate(self, node: Node, settled: list[Any], network: Network) -> Any:
        data = as_array(settled[0]) if settled else None
        call = self._call(node, data)
        if len(call.ranks) == 1 and call.is_collective:
            return settled[0]
        self.calls.append(call)
        future = network.issue(call, None if call.operator == RECEIVE else data)
        return future

    def _call(self, node: Node, data: np.ndarray | None) -> Call:
        attributes = node.attributes
        group = attributes["group"]
        ranks = self.groups.get(group) or tuple(attributes.get("group_rank_ids") or attributes.get("rank_list") or ())
        if node.operator == RECEIVE or data is None:
            kind = node.type
            shape, dtype, size = kind.shape, kind.dtype, kind.bytes  # type: ignore[union-attr]
        else:
            shape, dtype, size = data.shape, str(data.dtype), data.nbytes
        axes = (attributes.get("split_dim", 0), attributes.get("concat_dim", 0))
        reduction = attributes.get("op", "sum") if "Reduce" in node.operator else ""
        return Call(
            self.number, len(self.calls), node.operator, group, ranks, tuple(shape), dtype, size, node.scope,
            node.instance, reduction, _peer(node), attributes.get("sr_tag", 0), axes,
        )  # fmt: skip


def _peer(node: Node) -> int:
    """Global rank of the other side of a send or receive; -1 for a collective."""
    side, local = ("dst_global_rank", "dest_rank") if node.operator == SEND else ("src_global_rank", "src_rank")
    attributes = node.attributes
    if side in attributes:
        return int(attributes[side])
    # Graphs that are not for training name a place in the group alone.
    return int(attributes["group_rank_ids"][attributes[local]]) if local in attributes else -1


_FORMS: dict[str, Any] = {
    "Load": Rank._load,
    "Depend": Rank._depend,
    "UpdateState": Rank._update_state,
    "TupleGetItem": Rank._item,
    "ListGetItem": Rank._item,
    "MakeTuple": lambda rank, given: tuple(given),
    "MakeList": lambda rank, given: list(given),
    "Partial": lambda rank, given: Closure(given[0].function, (*given[0].arguments, *given[1:])),
    "Switch": Rank._switch,
    "Return": lambda rank, given: given[0],
    "return": lambda rank, given: given[0],
}
"""Operators that compute nothing."""
