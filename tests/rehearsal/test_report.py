"""Reports of a dry run whose numbers are made up here, so that every word of them can be checked."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.parallel.stages import stages_of_layers
from pangu_alpha.rehearsal.communication import (
    ACTIVATIONS,
    PRODUCT,
    REDISTRIBUTION,
    Communication,
    CommunicationSum,
    sum_communication,
)
from pangu_alpha.rehearsal.dry_run import DryRun
from pangu_alpha.rehearsal.graph import RankReadOut, Redistribution, WithoutStrategy
from pangu_alpha.rehearsal.memory import GRADIENT, MOMENT, STATE, WEIGHT, Memory, ParameterSlice
from pangu_alpha.rehearsal.report import (
    as_json,
    communication_table,
    findings_tables,
    group_text,
    memory_table,
    parameters_table,
    ranks_table,
    search_table,
    size_text,
    verdict,
)
from pangu_alpha.rehearsal.report_page import as_page
from pangu_alpha.rehearsal.report_pictures import communication_matrix, exchanged, memory_bars, stage_map

WORDS = [
    "name=made_up", "model.num_layers=4", "train.batch_size=8", "train.micro_batches=2", "parallel.pipeline_stages=2",
    "parallel.data_parallel=2", "parallel.model_parallel=2", "cluster.device_memory_gib=1",
]  # fmt: skip
MIB = 2**20


def communication(operator: str, purpose: str, ranks: tuple[int, ...], times: int, size: int) -> Communication:
    return Communication(operator, purpose, "g", ranks, times, size, "", 0, "Default/a <b>", operator)


def parameter(name: str, kind: str, weight: str, shape: tuple[int, ...], shards: int = 1, idle: bool = False):
    return ParameterSlice(name, kind, weight, (shape[0] * 2, *shape[1:]), shape, MIB, shards, idle)


@pytest.fixture
def run() -> DryRun:
    config = load_config(None, WORDS).config
    layout = layout_of(config)
    memory = Memory(100 * MIB, 200 * MIB, 100 * MIB, 8, MIB, 40 * MIB, 300 * MIB, "x", 50 * MIB, 2, 1024 * MIB)
    rank = RankReadOut(
        rank=1,
        stage=0,
        target="ascend",
        parameters=(
            parameter("blocks.0.w", WEIGHT, "blocks.0.w", (4, 8), 2),
            parameter("adam_m.blocks.0.w", MOMENT, "blocks.0.w", (4, 8), 2),
            parameter("accu_grads.blocks.0.w", GRADIENT, "blocks.0.w", (8, 8)),
            parameter("blocks.1.w", WEIGHT, "blocks.1.w", (4, 8), 2),
            parameter("adam_m.blocks.1.w", MOMENT, "blocks.1.w", (4, 8), 2),
            parameter("accu_grads.blocks.1.w", GRADIENT, "blocks.1.w", (8, 8)),
            parameter("word_table", WEIGHT, "word_table", (5, 8), idle=True),
            ParameterSlice("loss_scale", STATE, "loss_scale", (), (), 4, 1, False),
        ),
        communication=(
            communication("AllReduce", PRODUCT, (0, 1), 4, 3 * MIB),
            communication("AllReduce", PRODUCT, (0, 1), 4, MIB),
            communication("Send", ACTIVATIONS, (1, 5), 2, MIB),
            communication("AllGather", REDISTRIBUTION, (1, 3), 2, MIB),
        ),
        redistributions=(
            Redistribution("Default/cut", "StridedSlice", 2, 100, "on purpose"),
            Redistribution("Default/moved", "AllGather", 2, MIB, ""),
        ),
        without_strategy=(WithoutStrategy("Default/GeLU-op0", "GeLU", ((4, 1),)),),
        recomputed={"MatMul": 8},
        operators={"MatMul": 20},
        strategies={"Default/MatMul-op0": [[2, 1], [1, 2]]},
        memory=memory,
        seconds=12.34,
        processor_seconds=11.0,
        peak_bytes=2**30,
    )
    return DryRun(config, layout, "ascend", "2.10.0", stages_of_layers(config.model, layout), (rank,))


def rows(table) -> list[dict[str, str]]:
    assert all(len(row) == len(table.header) for row in table.rows)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_ranks_and_memory(run):
    (row,) = rows(ranks_table(run))
    assert (row["rank"], row["stage"], row["data, model"], row["layers"]) == ("1", "0", "0, 1", "0-1")
    assert (row["sent a step"], row["unplanned"], row["no strategy"]) == ("20.00 MiB", "1", "1")
    assert row["weights"] == str(4 * 8 + 4 * 8 + 5 * 8)
    (row,) = rows(memory_table(run))
    assert (row["weights"], row["idle of these"], row["activations"]) == ("100.00", "40.00", "300.00")
    assert row["kept micro batches"] == "2 x 50.00"
    assert row["total"] == "701.00"
    assert row[""] == "fits 1.00 GiB"


def test_communication_of_one_kind_is_one_row(run):
    first, second, third = rows(communication_table(run.ranks[0]))
    assert first == {
        "what for": PRODUCT, "operator": "AllReduce", "ranks": "2: 0-1", "in graph": "2", "runs": "8", "MiB": "16.00",
    }  # fmt: skip
    assert (second["ranks"], second["MiB"]) == ("1 to 5", "2.00")
    assert third["what for"] == REDISTRIBUTION


def test_parameters_of_equal_blocks_are_one_row(run):
    blocks, table, state = rows(parameters_table(run.ranks[0]))
    assert blocks["parameter"] == "blocks.*.w"
    assert (blocks["weight's slice"], blocks["moments' slices"], blocks["gradient's slice"]) == (
        "4 x 8",
        "4 x 8",
        "8 x 8",
    )
    assert (blocks["optimizer shards"], blocks["of these"], blocks["MiB in all"]) == ("2", "2", "6.00")
    assert table["parameter"] == "word_table (idle)"
    assert table["moments' slices"] == "-"
    assert state["whole"] == "one number"


def test_findings_are_listed_with_their_scope(run):
    moved, missing, again = findings_tables(run.ranks[0])
    assert [row["why"] for row in rows(moved)] == ["UNPLANNED", "on purpose"]
    assert rows(moved)[0]["scope"] == "Default/moved"
    assert rows(missing) == [
        {"operator": "GeLU", "MindSpore's choice": "((4, 1),)", "scope": "Default/GeLU-op0"},
    ]
    assert rows(again) == [{"operator": "MatMul", "runs a step": "8"}]


def test_the_verdict(run):
    assert not run.in_order
    text = "\n".join(verdict(run))
    assert "unplanned redistributions  1 (1 planned)" in text
    assert "without a strategy         1 operators" in text
    assert "fits: at most 701.00 MiB of 1.00 GiB (68% of a device, on rank 1)" in text
    (rank,) = run.ranks
    full = dataclasses.replace(rank, memory=dataclasses.replace(rank.memory, device=700 * MIB))
    assert "DOES NOT FIT" in verdict(dataclasses.replace(run, ranks=(full,)))[2]
    clean = dataclasses.replace(rank, redistributions=rank.redistributions[:1], without_strategy=())
    assert dataclasses.replace(run, ranks=(clean,)).in_order
    assert not dataclasses.replace(run, ranks=(clean, full)).in_order


def test_groups_in_few_letters():
    def text(*ranks: int, operator: str = "AllReduce") -> str:
        return group_text(CommunicationSum(PRODUCT, operator, ranks, 1, 1, 1))

    assert text(4, 5, 6, 7) == "4: 4-7"
    assert text(0, 16, 32, 48) == "4: 0, 16 … 48"
    assert text(0, 2) == "2: 0, 2"
    assert text(0, 1, 4, 5, 8, 9) == "6: 0, 1, 4 … 9"
    assert text(3, 1, operator="Receive") == "3 to 1"


def test_sizes():
    assert [size_text(size) for size in (0, 5, 2048, 3 * MIB, 2**30)] == [
        "0 bytes", "5 bytes", "2.00 KiB", "3.00 MiB", "1.00 GiB",
    ]  # fmt: skip


def test_json_has_everything(run):
    content = json.loads(as_json(run))
    (rank,) = content["ranks"]
    assert content["in_order"] is False
    assert content["layer_stages"] == [0, 0, 1, 1]
    assert len(rank["communication"]) == len(sum_communication(run.ranks[0].communication)) == 3
    assert len(rank["communication_operators"]) == 4
    assert [item["planned"] for item in rank["redistributions"]] == [True, False]
    assert rank["memory"]["total"] == 701 * MIB + 8
    assert rank["parameters"][0]["slice_shape"] == [4, 8]


def test_what_ranks_exchange_is_spread_over_the_group():
    items = [communication("AllReduce", PRODUCT, (0, 1, 2), 2, 300), communication("Send", ACTIVATIONS, (1, 5), 1, 70)]
    assert exchanged(items, 1) == {0: 300, 2: 300, 5: 70}


def test_pictures_show_what_there_is(run):
    stages = stage_map(run)
    assert "embedding, layers 0-1" in stages
    assert "layer 2, query layer, norm, head" in stages
    assert stages.count("compiled</title>") == 1
    bars = memory_bars(run.ranks)
    assert "idle copy of the tied table: 40.00 MiB" in bars
    assert "the device: 1.00 GiB" in bars
    assert "701.00 MiB" in bars
    (rank,) = run.ranks
    tiny = dataclasses.replace(rank, memory=dataclasses.replace(rank.memory, device=32 * 2**30))
    assert "of 32.00 GiB" in memory_bars([tiny])
    assert "the device:" not in memory_bars([tiny])
    matrix = communication_matrix(run)
    assert "rank 1 and rank 0: 16.00 MiB a step each" in matrix
    assert "rank 1 and rank 5: 2.00 MiB a step each" in matrix


def test_the_page_escapes_and_stands_alone(run):
    odd = dataclasses.replace(run, config=dataclasses.replace(run.config, name="a<b>&c"))
    page = as_page(odd)
    assert "a&lt;b&gt;&amp;c" in page
    assert "a<b>" not in page
    assert page.count("<svg") == 3
    assert "http" not in page


def test_the_search_is_set_beside_our_strategies(run):
    (rank,) = run.ranks
    searched = dataclasses.replace(
        rank, strategies={"Default/MatMul-op0": [[4, 1], [1, 1]]}, communication=rank.communication[:1]
    )
    parallel = dataclasses.replace(run.config.parallel, search="sharding_propagation")
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, parallel=parallel), ranks=(searched,))
    table = search_table(run, other)
    assert table.rows == [["MatMul", "((2, 1), (1, 2))", "((4, 1), (1, 1))", "1"]]
    assert "sends 12.00 MiB a step instead of 20.00 MiB, with 1 redistributions" in table.title
