from __future__ import annotations

import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, TensorProto

from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.mindir import CALL, MONAD, ElementType, TensorType, parse_mindir, read_mindir, read_value


def _tensor(array: np.ndarray, data_type: int, name: str = "", data: bool = True) -> TensorProto:
    return TensorProto(name=name, dims=array.shape, data_type=data_type, raw_data=array.tobytes() if data else b"")


def _attribute(name: str, kind: int, **value) -> AttributeProto:
    return AttributeProto(name=name, type=kind, **value)


def _model(with_data: bool = True) -> ModelProto:
    """main(x) = helper(Add(x, weight)), helper(y) = Mul(y, a constant that stands in main)."""
    model = ModelProto()
    add = model.primitives.add(name="REF:1", op_type="Add", instance_name="adds")
    add.attribute.append(_attribute("keep_alive", AttributeProto.BOOL, i=1))
    model.primitives.add(name="REF:2", op_type="Mul")
    main, helper = model.graph, model.functions.add(name="helper")
    main.name = "main"
    main.input.add(name="main:x").tensor.append(_tensor(np.zeros((2, 3), np.float32), TensorProto.FLOAT, data=False))
    main.parameter.append(_tensor(np.arange(3, dtype=np.float32), TensorProto.FLOAT, "main:weight", with_data))
    constant = main.node.add(op_type="Constant", output=["two"])
    constant.attribute.append(
        _attribute("value", AttributeProto.TENSORS, tensors=[_tensor(np.array(2, np.int32), TensorProto.INT32)])
    )
    node = main.node.add(
        op_type="REF::REF:1", input=["main:x", "main:weight"], output=["main:sum"], domain="Default/Add-op0"
    )
    node.attribute.append(
        _attribute(
            "shape",
            AttributeProto.TENSORS,
            tensors=[_tensor(np.zeros((2, 3), np.float16), TensorProto.FLOAT16, data=False)],
        )
    )
    node.node_attr.append(_attribute("micro", AttributeProto.INT64, i=3))
    main.node.add(op_type="REF::helper", input=["main:sum"], output=["main:called"])
    main.output.add(name="main:called")
    helper.input.add(name="helper:y")
    helper.node.add(op_type="REF::REF:2", input=["helper:y", "two"], output=["helper:product"])
    helper.output.add(name="helper:product")
    return model


def test_parse():
    graph = parse_mindir(_model().SerializeToString())
    assert graph.inputs == {"x": TensorType((2, 3), "float32", 24)}
    add, call = graph.main.nodes
    assert (add.operator, add.instance, add.attributes) == ("Add", "adds", {"keep_alive": True})
    assert (add.inputs, add.output, add.scope) == (("main:x", "main:weight"), "main:sum", "Default/Add-op0")
    assert add.type == TensorType((2, 3), "float16", 12)
    assert add.marks == {"micro": 3}
    assert (call.operator, call.callee) == (CALL, "helper")
    helper = graph.functions["helper"]
    assert (helper.inputs, helper.result) == (("helper:y",), "helper:product")
    assert graph.constants["two"] == 2, "a constant serves all functions, wherever it stands"
    weight = graph.parameters["main:weight"]
    assert weight.name == "weight"
    np.testing.assert_array_equal(weight.data, [0, 1, 2])


def test_parameters_without_data():
    weight = parse_mindir(_model(with_data=False).SerializeToString()).parameters["main:weight"]
    assert weight.data is None
    assert weight.type == TensorType((3,), "float32", 12)


def test_values():
    numbers = [AttributeProto(type=AttributeProto.INT64, ints=[n]) for n in (1, 2)]
    nested = AttributeProto(
        type=AttributeProto.LIST, values=[AttributeProto(type=AttributeProto.TUPLE, values=numbers)]
    )
    assert read_value(nested) == [(1, 2)]
    assert read_value(AttributeProto(type=AttributeProto.TUPLE)) == ()
    assert read_value(_attribute("", AttributeProto.BOOL, i=0)) is False
    assert read_value(_attribute("", AttributeProto.FLOAT, f=0.5)) == 0.5
    assert read_value(_attribute("", AttributeProto.STRING, s=b"sum")) == "sum"
    assert read_value(_attribute("", AttributeProto.UMONAD)) is MONAD
    assert read_value(_attribute("", AttributeProto.NONE)) is None
    kind = _tensor(np.zeros((), np.float16), TensorProto.FLOAT16, data=False)
    assert read_value(AttributeProto(type=AttributeProto.TENSORS, tensors=[kind])) == ElementType("float16")
    halves = TensorProto(dims=[2], data_type=TensorProto.BFLOAT16, raw_data=np.array([0x3F80, 0xC000], "<u2").tobytes())
    np.testing.assert_array_equal(
        read_value(AttributeProto(type=AttributeProto.TENSORS, tensors=[halves])), [1.0, -2.0]
    )


@pytest.mark.parametrize("content", [b"no graph at all", b""])
def test_not_a_graph(tmp_path, content):
    path = tmp_path / "graph.mindir"
    path.write_bytes(content)
    with pytest.raises(PanguError, match=r"graph\.mindir is no graph of MindSpore .*; compile the rank again"):
        read_mindir(path)
