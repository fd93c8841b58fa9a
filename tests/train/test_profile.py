"""Traces of steps: the parts by hand, and a real profile of a MindSpore cell in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pangu_alpha.train.profile import (
    Operator,
    Step,
    StepProfiler,
    chrome_trace,
    operator_table,
    operators_within,
    parse_steps,
    read_operators,
)

RECORDED = """\
Default/network/a-Dense/MatMul-op0;HostCpuOps;1000001000,0.002,0 1000011000,0.003,0
Gradients/Default/b/Grad_GeLU/GeLUGrad-op12;HostCpuOps;1000002000,0.004,1
not a line of operators
"""


def spans(trace: dict, category: str) -> list[dict]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and event["cat"] == category]


def test_steps_are_parsed():
    assert parse_steps("3-5") == (3, 5)
    assert parse_steps("7-7") == (7, 7)


def test_recorded_operators_are_read(tmp_path):
    path = tmp_path / "cpu_op_execute_timestamp_0.txt"
    path.write_text(RECORDED)
    assert read_operators(path) == [
        Operator("Default/network/a-Dense/MatMul-op0", "MatMul", 1000001000, 2000),
        Operator("Gradients/Default/b/Grad_GeLU/GeLUGrad-op12", "GeLUGrad", 1000002000, 4000),
        Operator("Default/network/a-Dense/MatMul-op0", "MatMul", 1000011000, 3000),
    ]


def test_only_what_ran_within_the_steps_counts():
    steps = [Step(3, 100, 200), Step(4, 300, 400)]
    operators = [Operator("a", "A", start, 10) for start in (50, 100, 250, 350, 401)]
    assert [item.start for item in operators_within(operators, steps)] == [100, 350]


def test_operators_that_overlap_get_rows_of_their_own():
    operators = [
        Operator("a", "A", 0, 5000),
        Operator("b", "B", 1000, 1000),
        Operator("c", "C", 3000, 1000),
        Operator("d", "D", 5000, 1000),
    ]
    trace = chrome_trace([Step(1, 0, 6000)], operators)
    rows = {event["name"]: event["tid"] for event in spans(trace, "operator")}
    assert rows == {"A": 1, "B": 2, "C": 2, "D": 1}
    (step,) = spans(trace, "step")
    assert (step["name"], step["ts"], step["dur"]) == ("step 1", 0.0, 6.0)  # microseconds
    names = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert names == {0: "steps", 1: "operators 1", 2: "operators 2"}


def test_the_table_is_sorted_and_adds_up():
    steps = [Step(1, 0, 10_000_000), Step(2, 20_000_000, 30_000_000)]
    operators = [
        Operator("a", "Small", 0, 1_000_000),
        Operator("b", "Big", 1_000_000, 6_000_000),
        Operator("b", "Big", 20_000_000, 4_000_000),
    ]
    lines = [line.split("\t") for line in operator_table(steps, operators).splitlines()]
    assert lines[0] == ["operator", "calls/step", "ms/step", "share"]
    assert lines[1] == ["Big", "1", "5.000", "50.0%"]
    assert lines[2] == ["Small", "0.5", "0.500", "5.0%"]
    assert lines[3] == ["(no operator)", "0", "4.500", "45.0%"]


def test_overlapping_operators_do_not_hide_idle_time():
    steps = [Step(1, 0, 10_000_000)]
    operators = [
        Operator("a", "A", 0, 4_000_000),
        Operator("b", "B", 1_000_000, 1_000_000),
        Operator("c", "C", 2_000_000, 4_000_000),
    ]
    assert operator_table(steps, operators).splitlines()[-1].split("\t")[-1] == "40.0%"


def test_a_run_outside_the_range_writes_nothing(tmp_path):
    profiler = StepProfiler(3, 5, tmp_path / "profile")
    for step in (1, 2, 6):
        profiler.before_step(step)
        profiler.after_step(step)
    profiler.close()
    assert not (tmp_path / "profile").exists()


REAL = """
import sys
import numpy as np
import mindspore as ms
from mindspore import Tensor, nn
from pangu_alpha.train.profile import StepProfiler

class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.active = nn.Dense(64, 256), nn.Dense(256, 64), nn.GELU()
    def construct(self, value):
        return self.second(self.active(self.first(value))).sum()

ms.set_context(mode=ms.GRAPH_MODE)
net = Net()
train = nn.TrainOneStepCell(net, nn.AdamWeightDecay(net.trainable_params()))
value = Tensor(np.ones((128, 64), np.float32))
profiler = StepProfiler(3, 4, sys.argv[1])
for step in range(1, 1 + int(sys.argv[2])):
    profiler.before_step(step)
    train(value).asnumpy()
    profiler.after_step(step)
profiler.close()
"""


@pytest.mark.parametrize("steps", [6, 3])  # a run that goes on, and one that ends within the range
def test_a_real_profile_opens_as_a_trace(tmp_path, repository, steps):
    program, directory = tmp_path / "program.py", tmp_path / "profile"
    program.write_text(REAL)  # MindSpore compiles nothing that is not in a file
    run = subprocess.run(
        [sys.executable, str(program), str(directory), str(steps)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in directory.iterdir()) == ["operators.tsv", "trace.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "profile",
        "program.py",
    ]  # nothing is left in the working directory
    trace = json.loads((directory / "trace.json").read_text())
    profiled = spans(trace, "step")
    assert [event["name"] for event in profiled] == (["step 3", "step 4"] if steps > 3 else ["step 3"])
    operators = spans(trace, "operator")
    assert {"MatMul", "GeLU", "GeLUGrad", "AdamWeightDecay"} <= {event["name"] for event in operators}
    for event in operators:
        assert event["dur"] > 0
        assert "/" in event["args"]["name in the graph"]
        # Recorded starts are rounded to the microsecond by the profiler's own clock.
        assert any(
            step["ts"] <= event["ts"] and event["ts"] + event["dur"] <= step["ts"] + step["dur"] + 50
            for step in profiled
        )
    rows: dict[int, float] = {}
    for event in sorted(operators, key=lambda item: item["ts"]):
        assert event["ts"] >= rows.get(event["tid"], 0.0) - 1e-6  # no two of a row overlap
        rows[event["tid"]] = event["ts"] + event["dur"]
    table = (directory / "operators.tsv").read_text().splitlines()
    assert len(table) >= 6
    kinds = {line.split("\t")[0]: line.split("\t")[1] for line in table[1:]}
    assert kinds["MatMul"] == "5"  # two forward, three backward: the input needs no gradient
