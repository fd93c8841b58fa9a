"""Ranks compile in processes of their own, and whatever goes wrong there is one line here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import ModelProto

from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.rehearsal.compile import CompileRequest, compile_rank, compile_ranks


@pytest.fixture(autouse=True)
def small_programs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def config(*words: str) -> Config:
    """Data parallel 2, model parallel 2."""
    return load_config(None, ["parallel.data_parallel=2", "parallel.model_parallel=2", *words]).config


def request(folder, program="good", rank=3, target="ascend", mode="compile", **changes) -> CompileRequest:
    made = CompileRequest(config(), rank, target, folder, mode, f"small_program:{program}")
    return dataclasses.replace(made, **changes)


def read(path: Path) -> ModelProto:
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


@pytest.mark.parametrize("target", ["ascend", "gpu"])
def test_a_rank_compiles_to_its_graph_without_any_data(target, tmp_path):
    compiled = compile_rank(request(tmp_path, target=target))
    model = read(compiled.graph)
    kinds = {primitive.name: primitive.op_type for primitive in model.primitives}
    operators = [kinds.get(node.op_type.removeprefix("REF::")) for node in model.graph.node]
    assert operators.count("MatMul") == 5  # two forward, three backward: nothing asks for the gradient of x
    assert "AllReduce" in operators
    assert not any(parameter.raw_data for parameter in model.graph.parameter)
    into = compiled.layouts["into"]
    assert (into.full_shape, into.slice_shape, into.optimizer_group) == ((16, 32), (16, 16), "")
    assert compiled.layouts["moment1.back"].slice_shape == (16, 16)
    assert (0, 1, 2, 3) in compiled.groups.values()
    assert {(2, 3), (1, 3)} <= set(compiled.groups.values())
    assert [[2, 2], [2, 1]] in compiled.strategies.values()
    assert compiled.processor_seconds > 0
    assert 0 < compiled.seconds < 120
    assert compiled.mindspore
    assert 100 * 2**20 < compiled.peak_bytes < 2 * 2**30
    assert not (tmp_path / "error.json").exists()


def test_export_has_the_slice_of_every_parameter(tmp_path):
    ranks = compile_ranks([request(tmp_path / str(rank), rank=rank, mode="export") for rank in (0, 3)])
    assert [compiled.rank for compiled in ranks] == [0, 3]
    whole = np.arange(32 * 16, dtype=np.float32).reshape(32, 16) + 1000
    for compiled, rows in zip(ranks, (slice(0, 16), slice(16, 32)), strict=True):
        found = {p.name.rpartition(":")[2]: p for p in read(compiled.graph).graph.parameter}["back"]
        values = np.frombuffer(found.raw_data, np.float32).reshape(tuple(found.dims))
        np.testing.assert_array_equal(values, whole[rows])


def test_a_strategy_that_cannot_be_is_told_in_one_line(tmp_path):
    with pytest.raises(PanguError) as caught:
        compile_rank(request(tmp_path, "impossible_strategy"))
    text = str(caught.value)
    assert text.startswith("rank 3 of 4 (ascend) does not compile: ")
    assert "GeLU" in text
    assert "shape value 8 at dim index 0 cannot be divisible by strategy value 3" in text
    assert "small_program.py:" in text
    assert "\n" not in text
    assert len(text) < 900
    assert text.endswith("log.txt")


@pytest.mark.parametrize("program", ["too_little_memory", "killed"])
def test_out_of_memory_is_reported_as_such(program, tmp_path):
    with pytest.raises(PanguError, match=r"rank 3 of 4 \(ascend\): compiling ran out of memory .*--at-once 1"):
        compile_rank(request(tmp_path, program))


@pytest.mark.parametrize(("program", "said"), [("crashing", "signal SIGSEGV"), ("leaving", "exit code 3")])
def test_a_crash_is_one_line(program, said, tmp_path):
    with pytest.raises(PanguError, match=f"does not compile: the compiler ended with {said}"):
        compile_rank(request(tmp_path, program))


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_first_failure_ends_the_others(at_once, tmp_path):
    requests = [request(tmp_path / str(n), "leaving" if n == 0 else "good") for n in range(4)]
    requests[1] = request(tmp_path / "1", "endless")
    seen = []
    with pytest.raises(PanguError, match="exit code 3"):
        compile_ranks(requests, at_once=at_once, done=seen.append)
    assert not seen
    assert not (tmp_path / "3" / "log.txt").exists()


def test_what_cannot_be_asked_for(tmp_path):
    for rank in (-1, 4):
        with pytest.raises(UsageError, match=f"there is no rank {rank} in a run of 4 devices; allowed: 0 to 3"):
            compile_rank(request(tmp_path, rank=rank))
    with pytest.raises(UsageError, match="no mode 'run'; allowed: compile, export"):
        compile_rank(request(tmp_path, mode="run"))
    with pytest.raises(UsageError, match="no target 'cpu'"):
        compile_rank(request(tmp_path, target="cpu"))
    assert not list(tmp_path.iterdir())


def test_a_result_of_an_earlier_compile_is_not_taken_for_a_new_one(tmp_path):
    (tmp_path / "result.json").write_text('{"processor_seconds": 1, "peak_bytes": 1, "mindspore": "2"}')
    with pytest.raises(PanguError, match="exit code 3"):
        compile_rank(request(tmp_path, "leaving"))
