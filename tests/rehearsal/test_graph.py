"""What is read of real graphs: of a small network compiled here, and (slow) of a run's twin."""

from __future__ import annotations

import dataclasses
from math import prod
from pathlib import Path

import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.parallel.strategies import PlannedRedistribution
from pangu_alpha.rehearsal import communication
from pangu_alpha.rehearsal.calls import Calls
from pangu_alpha.rehearsal.communication import bytes_by_group, sum_communication
from pangu_alpha.rehearsal.compile import CompileRequest, compile_ranks
from pangu_alpha.rehearsal.graph import RankReadOut, read_rank, read_redistributions
from pangu_alpha.rehearsal.memory import GRADIENT, MOMENT, STATE, WEIGHT
from pangu_alpha.rehearsal.mindir import read_mindir

FLOAT = 4


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, RankReadOut]:
    """Program of small_program.py -> rank 3 of data 2 x model 2."""
    names = ("good", "without_strategy")
    config = load_config(None, ["parallel.data_parallel=2", "parallel.model_parallel=2"]).config
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        requests = [
            CompileRequest(config, 3, "ascend", folder / name, program=f"small_program:{name}") for name in names
        ]
        compiled = compile_ranks(requests)
    return {name: read_rank(rank) for name, rank in zip(names, compiled, strict=True)}


def test_communication_is_counted_by_purpose_and_group(small):
    rows = {(row.purpose, row.operator, row.ranks): row for row in sum_communication(small["good"].communication)}
    hidden = 4 * 16 * FLOAT  # half of the 8 rows, 16 wide
    product = rows[communication.PRODUCT, "AllReduce", (2, 3)]
    assert (product.operators, product.times, product.bytes) == (1, 1, hidden)
    back = rows[communication.PRODUCT_BACKWARD, "AllReduce", (2, 3)]
    assert (back.operators, back.bytes) == (1, hidden)
    gradients = rows[communication.WEIGHT_GRADIENT, "AllReduce", (1, 3)]
    assert (gradients.operators, gradients.bytes) == (2, 2 * 16 * 16 * FLOAT)
    mean = rows[communication.OTHER, "AllReduce", (1, 3)]
    assert (mean.operators, mean.bytes) == (1, FLOAT)
    assert len(rows) == 4
    assert bytes_by_group(small["good"].communication) == {
        ("AllReduce", (2, 3)): 2 * hidden,
        ("AllReduce", (1, 3)): 2 * 16 * 16 * FLOAT + FLOAT,
    }
    assert {item.parameter for item in small["good"].communication} == {"", "into", "back"}


def test_a_gather_counts_what_the_rank_gives(small):
    gathers = [item for item in small["without_strategy"].communication if item.operator == "AllGather"]
    # From 4 x 16, half of the columns, to all of them; and from 2 x 32, a quarter of the rows, back to half of them.
    assert [item.bytes for item in gathers] == [4 * 16 * FLOAT, 2 * 32 * FLOAT]
    scatters = [item for item in small["without_strategy"].communication if item.operator == "ReduceScatter"]
    assert [item.bytes for item in scatters] == [4 * 32 * FLOAT, 2 * 4 * 16 * FLOAT]


def test_what_has_no_strategy_is_found_with_what_it_costs(small):
    assert small["good"].without_strategy == ()
    assert small["good"].unplanned == small["good"].redistributions
    assert {item.operator for item in small["good"].redistributions} == {"StridedSlice"}  # the whole batch, cut
    (found,) = small["without_strategy"].without_strategy
    assert (found.operator, found.strategy) == ("GeLU", ((4, 1),))
    assert found.scope.endswith("network-Network/GeLU-op0")
    unplanned = [item.operator for item in small["without_strategy"].unplanned]
    assert unplanned.count("AllGather") == 2
    assert unplanned.count("ReduceScatter") == 2
    assert all("network-Network" in item.scope for item in small["without_strategy"].unplanned)


def test_a_plan_to_cut_does_not_excuse_communication(small, tmp_path_factory):
    compiled = tmp_path_factory.getbasetemp().glob("small*/without_strategy/graph.mindir")
    calls = Calls(read_mindir(next(compiled)))
    cut = PlannedRedistribution("network-Network", "cut", communicates=False)
    planned = {item.operator for item in read_redistributions(calls, [cut]) if item.planned}
    assert "StridedSlice" in planned
    assert planned <= {"StridedSlice", "StridedSliceGrad"}
    assert {item.operator for item in read_redistributions(calls, [cut]) if not item.planned} >= {"AllGather"}
    assert all(item.planned for item in read_redistributions(calls, [dataclasses.replace(cut, communicates=True)]))


def test_parameters_have_their_slices(small):
    found = {item.name: item for item in small["good"].parameters}
    assert (found["into"].kind, found["into"].full_shape, found["into"].slice_shape) == (WEIGHT, (16, 32), (16, 16))
    assert (found["moment1.back"].kind, found["moment1.back"].weight) == (MOMENT, "back")
    assert found["global_step"].kind == STATE
    assert found["into"].bytes == 16 * 16 * FLOAT
    memory = small["good"].memory
    assert (memory.weights, memory.moments, memory.gradients, memory.idle) == (2048, 4096, 0, 0)
    assert memory.inputs == 8 * 16 * FLOAT
    assert memory.activations >= 2048  # both gradients are there when the optimizer begins
    assert memory.total == memory.static + memory.inputs + memory.activations
    assert memory.fits


@pytest.fixture(scope="module")
def twin(tmp_path_factory, repository) -> dict[int, RankReadOut]:
    """First and last rank of the twin that has all five dimensions."""
    config = load_config(repository / "configs" / "twins" / "all_five.yaml").config
    folder = tmp_path_factory.mktemp("twin")
    requests = [CompileRequest(config, rank, "ascend", folder / str(rank)) for rank in (0, 7)]
    return {rank.rank: read_rank(rank) for rank in compile_ranks(requests)}


@pytest.mark.slow
def test_a_twin_has_nothing_unplanned(twin):
    for rank in twin.values():
        assert rank.unplanned == ()
        assert rank.without_strategy == ()
        assert communication.OTHER not in {item.purpose for item in rank.communication}


@pytest.mark.slow
def test_a_twin_sends_what_its_layout_says(twin, repository):
    config = load_config(repository / "configs" / "twins" / "all_five.yaml").config
    layout, model = layout_of(config), config.model
    first = {(row.purpose, row.operator): row for row in sum_communication(twin[0].communication)}
    last = {(row.purpose, row.operator): row for row in sum_communication(twin[7].communication)}
    rows = config.train.batch_size // layout.micro_batches // layout.data_parallel
    hidden = rows * model.seq_length * model.hidden_size * FLOAT
    for row in (first[communication.ACTIVATIONS, "Send"], last[communication.ACTIVATION_GRADIENTS, "Send"]):
        assert (row.times, row.bytes) == (layout.micro_batches, layout.micro_batches * hidden)
    layers = model.num_layers // layout.pipeline_stages
    for row in (first[communication.PRODUCT, "AllReduce"], last[communication.PRODUCT_BACKWARD, "AllReduce"]):
        assert row.times == 2 * layers * layout.micro_batches
        assert row.bytes == row.times * hidden
    table = model.vocab_size * model.hidden_size * FLOAT // layout.model_parallel // layout.optimizer_shards
    assert first[communication.TIED_TABLE, "Send"].times == last[communication.TIED_TABLE, "Receive"].times == 1
    assert first[communication.TIED_TABLE, "Send"].bytes == table
    assert first[communication.NORM, "AllReduce"].ranks == tuple(range(layout.devices))


@pytest.mark.slow
def test_a_twin_holds_what_its_layout_says(twin, repository):
    config = load_config(repository / "configs" / "twins" / "all_five.yaml").config
    layout, model = layout_of(config), config.model
    table = {item.name: item for item in twin[7].parameters if item.weight == "word_table"}
    assert set(table) == {"word_table", "adam_m.word_table", "adam_v.word_table", "accu_grads.word_table"}
    assert all(item.idle for item in table.values())
    assert table["word_table"].optimizer_shards == layout.optimizer_shards
    assert prod(table["word_table"].slice_shape) * 4 == prod(table["word_table"].full_shape)
    assert table["accu_grads.word_table"].kind == GRADIENT
    assert twin[7].memory.idle == sum(item.bytes for item in table.values())
    assert twin[0].memory.idle == 0
    assert twin[0].memory.kept_at_once == layout.pipeline_stages  # 1F1B: as many as there are stages from here on
    names = {item.name for item in twin[0].parameters}
    assert "embedding.position_table" in names
    assert f"blocks.{model.num_layers // 2}.attention.query.weight" not in names
    assert twin[0].recomputed["Softmax"] == model.num_layers // layout.pipeline_stages * layout.micro_batches
