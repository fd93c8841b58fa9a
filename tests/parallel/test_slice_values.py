"""A rank makes values of its own parts alone."""

from __future__ import annotations

import mindspore
import numpy as np
import pytest

from pangu_alpha.config import ModelConfig
from pangu_alpha.model.numerics import resolve_numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.slice_values import give_slice_values
from pangu_alpha.parallel.slices import parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter

MODEL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, seq_length=16)
LAYOUT = Layout(data_parallel=2, model_parallel=2, pipeline_stages=2, optimizer_shards=2, micro_batches=2)


@pytest.fixture(autouse=True)
def in_parallel_mode():
    """Where MindSpore gives a new parameter no memory until the graph is compiled."""
    mindspore.set_auto_parallel_context(parallel_mode="semi_auto_parallel", device_num=8)
    yield
    mindspore.reset_auto_parallel_context()


@pytest.mark.parametrize("rank", [0, 3, 6])
def test_values_are_asked_for_when_the_graph_is_compiled_and_of_the_own_part(rank: int) -> None:
    model = PanguAlphaModel(MODEL, resolve_numerics(MODEL, "cpu"))
    asked: dict[str, tuple[slice, ...]] = {}

    def value(name: str, part: tuple[slice, ...]) -> np.ndarray:
        asked[name] = part
        shape = shapes[name]
        return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)[part]

    shapes = {item.name: tuple(item.shape) for item in model.get_parameters()}
    parameters = {item.name: item for item in model.get_parameters()}
    give_slice_values(parameters.values(), value, MODEL, LAYOUT, rank)
    assert not asked
    for name, parameter in parameters.items():
        part = parameter_slice(name, shapes[name], LAYOUT, rank)
        shape = [axis.stop - axis.start for axis in part]
        here = LAYOUT.stage_of(rank) in stages_of_parameter(name, MODEL, LAYOUT)
        if here:  # as MindSpore does for the parameters of a rank's graph: the number of the slice, shape, group
            made = parameter.init_mode.init_data(0, shape, "")
            expected = np.arange(np.prod(shapes[name]), dtype=np.float32).reshape(shapes[name])[part]
            np.testing.assert_array_equal(made.asnumpy(), expected, err_msg=name)
        assert (name in asked) == here
    assert any(name not in asked for name in parameters)


def test_a_part_that_mindspore_cuts_otherwise_is_an_error() -> None:
    model = PanguAlphaModel(MODEL, resolve_numerics(MODEL, "cpu"))
    weight = model.blocks[0].attention.query.weight
    give_slice_values([weight], lambda name, part: np.zeros(()), MODEL, LAYOUT, 0)
    with pytest.raises(RuntimeError, match="MindSpore keeps .* of blocks.0.attention.query.weight, and the layout"):
        weight.init_mode.init_data(0, [32, 32], "")
