"""A serialized MindIR graph (`mindspore.train.mind_ir_pb2.ModelProto`) as plain values.

What the format holds, and no document tells (MindSpore 2.10):

- `graph` is the entry; `functions` are the others: with `lazy_inline` one forward and one backward function serve all
  micro batches, and the branches of a condition are functions, too.
- A node's `op_type` is `REF::<primitive>`, `Constant`, or `REF::<function, or value that holds a closure>`: a call.
- Constants are stored once for all graphs, so a function may use one that stands in another.
- `graph.parameter` holds this rank's slice of every parameter, divided by optimizer shards, too; without data where the
  graph comes from a compilation that fills no parameters.
- Names of values have the graph's name before a colon.
"""

from __future__ import annotations

import enum
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.errors import PanguError

CALL = "call"
"""Operator of a node that calls a function or a closure."""

# TensorProto.DataType -> (name, bytes of one element)
_ELEMENTS = {
    1: ("float32", 4), 2: ("uint8", 1), 3: ("int8", 1), 4: ("uint16", 2), 5: ("int16", 2), 6: ("int32", 4),
    7: ("int64", 8), 9: ("bool", 1), 10: ("float16", 2), 11: ("float64", 8), 12: ("uint32", 4), 13: ("uint64", 8),
    14: ("complex64", 8), 15: ("complex128", 16), 16: ("bfloat16", 2), 17: ("float64", 8),
}  # fmt: skip
# AttributeProto.AttributeType
_FLOAT, _STRING, _BOOL, _DOUBLE, _TENSOR, _TENSORS, _TUPLE, _LIST, _SCALAR = 1, 8, 9, 11, 17, 19, 20, 21, 39
_MONADS = (22, 23)
_INTEGERS = frozenset((2, 3, 4, 5, 6, 7, 12, 13))


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type of a tensor.

    Attributes:
        shape: its axes.
        dtype: name of the element type, as NumPy has it, or bfloat16.
        bytes: of the whole tensor.
    """

    shape: tuple[int, ...]
    dtype: str
    bytes: int


Type = TensorType | tuple["Type", ...] | None
"""What a node gives: a tensor, several, or (None) something that is no tensor."""


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type as a value, such as the second input of a Cast."""

    name: str


class Monad(enum.Enum):
    """A value without content that orders operators with side effects."""

    MONAD = "monad"


MONAD = Monad.MONAD


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a function.

    Attributes:
        operator: name of the primitive (MatMul, AllReduce …), or CALL.
        callee: of a CALL, the function's name or the value that holds a closure.
        primitive: name of the primitive's entry; nodes with the same one have operator, instance and attributes alike.
        instance: instance name of the primitive, which tells who inserted it.
        attributes: of the primitive, see `read_value`.
        inputs: names of values.
        output: name of its value.
        type: of its value.
        scope: where in the cells it stands, such as Default/network/blocks-CellList/3-Block/MatMul-op0; a prefix
            tells the pass: Gradients/ the backward one, recompute_ the forward one of what is computed again.
        marks: attributes of the node itself, such as micro, is_bp, duplicated, recompute_insert.
        origin: what the compiler noted about where it came from.
    """

    operator: str
    callee: str
    primitive: str
    instance: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str
    type: Type
    scope: str
    marks: Mapping[str, Any]
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Function:
    """A graph: names of its `inputs`, its `nodes` in the compiler's order of execution, and its `result`."""

    name: str
    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    result: str


@dataclass(frozen=True, slots=True)
class StoredParameter:
    """One rank's slice of a parameter.

    Attributes:
        name: as in the cell.
        type: of the slice.
        data: its initial value; None where the graph was stored without.
    """

    name: str
    type: TensorType
    data: np.ndarray | None


@dataclass(frozen=True, slots=True)
class MindIR:
    """A parsed graph.

    Attributes:
        main: what one call runs.
        functions: the others by name.
        parameters: value of the main function -> the parameter it is.
        inputs: names of the call's arguments -> their types, in order.
        constants: value -> number, text, None, NumPy array, ElementType, MONAD, or a tuple or list of these.
    """

    main: Function
    functions: Mapping[str, Function]
    parameters: Mapping[str, StoredParameter]
    inputs: Mapping[str, TensorType]
    constants: Mapping[str, Any]


def compiled_protobuf() -> dict[str, str]:
    """Environment variables that keep protobuf's compiled form, which reads a graph eight times as fast.

    MindSpore sets the one in Python where nothing is set when it is imported.  Empty if there is no compiled one.
    """
    return {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "upb"} if importlib.util.find_spec("google._upb") else {}


def read_mindir(path: Path) -> MindIR:
    """Read the file `CompiledRank.graph`.

    Raises:
        PanguError: it is no serialized graph.
    """
    try:
        return parse_mindir(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PanguError(f"{path} is no graph of MindSpore ({error}); compile the rank again") from error


def parse_mindir(content: bytes) -> MindIR:
    """Parse a serialized ModelProto.

    Raises:
        ValueError: it is none.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = _model_proto()()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    if not model.graph.output:
        raise ValueError("it has no result")
    primitives = {
        item.name: (item.op_type, item.name, item.instance_name, {a.name: read_value(a) for a in item.attribute})
        for item in model.primitives
    }
    constants: dict[str, Any] = {}
    main, *others = [_function(graph, primitives, constants) for graph in (model.graph, *model.functions)]
    return MindIR(
        main,
        {function.name: function for function in others},
        {item.name: _parameter(item) for item in model.graph.parameter},
        {_bare(item.name): _tensor_type(item.tensor[0]) for item in model.graph.input},
        constants,
    )


@cache
def _model_proto() -> Any:
    """The class ModelProto, out of MindSpore's own file, but without MindSpore, which takes seconds and half a GiB."""
    package = importlib.util.find_spec("mindspore")
    if package is None or package.origin is None:
        raise PanguError("MindSpore is not installed here; install it with `pip install mindspore`")
    path = Path(package.origin).parent / "train" / "mind_ir_pb2.py"
    spec = importlib.util.spec_from_file_location("pangu_alpha_mind_ir_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelProto


def read_value(attribute: Any) -> Any:
    """The value of an AttributeProto, see `MindIR.constants`; None for graphs and the like."""
    kind = attribute.type
    if kind in (_TUPLE, _LIST):
        values = [read_value(value) for value in attribute.values]
        return tuple(values) if kind == _TUPLE else values
    if kind in _INTEGERS or kind == _BOOL:
        number = attribute.ints[0] if attribute.ints else attribute.i
        return bool(number) if kind == _BOOL else number
    if kind == _FLOAT:
        return attribute.floats[0] if attribute.floats else attribute.f
    if kind == _DOUBLE:
        return attribute.doubles[0] if attribute.doubles else attribute.d
    if kind == _STRING:
        text = attribute.strings[0] if attribute.strings else attribute.s
        return text.decode(errors="replace")
    if kind in (_TENSOR, _TENSORS):
        tensor = attribute.tensors[0] if attribute.tensors else attribute.t
        if tensor.raw_data or 0 in tensor.dims:
            return _array(tensor)
        return ElementType(_ELEMENTS.get(tensor.data_type, ("unknown", 0))[0])
    return MONAD if kind in _MONADS else None


def _function(proto: Any, primitives: dict[str, Any], constants: dict[str, Any]) -> Function:
    nodes = []
    for item in proto.node:
        if item.op_type == "Constant":
            constants[item.output[0]] = read_value(item.attribute[0]) if item.attribute else None
            continue
        reference = item.op_type.removeprefix("REF::")
        operator, primitive, instance, attributes = primitives.get(reference, (CALL, "", "", {}))
        nodes.append(
            Node(
                operator,
                reference if operator == CALL else "",
                primitive,
                instance,
                attributes,
                tuple(item.input),
                item.output[0],
                next((_type(attribute) for attribute in item.attribute if attribute.name == "shape"), None),
                item.domain,
                {attribute.name: read_value(attribute) for attribute in item.node_attr},
                {attribute.name: read_value(attribute) for attribute in item.primal_attr},
            )
        )
    return Function(proto.name, tuple(item.name for item in proto.input), tuple(nodes), proto.output[0].name)


def _parameter(proto: Any) -> StoredParameter:
    kind = _tensor_type(proto)
    empty = kind.bytes == 0
    return StoredParameter(_bare(proto.name), kind, _array(proto) if proto.raw_data or empty else None)


def _bare(name: str) -> str:
    return name.rpartition(":")[2]


def _tensor_type(proto: Any) -> TensorType:
    name, size = _ELEMENTS.get(proto.data_type, ("unknown", 0))
    shape = tuple(proto.dims)
    return TensorType(shape, name, prod(shape) * size)


def _type(attribute: Any) -> Type:
    if attribute.values:
        return tuple(_type(value) for value in attribute.values)
    if attribute.tensors and attribute.type != _SCALAR:
        return _tensor_type(attribute.tensors[0])
    return None


def _array(proto: Any) -> np.ndarray:
    """The data of a TensorProto; bfloat16, which NumPy lacks, as float32."""
    kind = _tensor_type(proto)
    if kind.dtype == "bfloat16":
        halves = np.frombuffer(proto.raw_data, np.uint16).astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(kind.shape)
    return np.frombuffer(proto.raw_data, kind.dtype).reshape(kind.shape).copy()
