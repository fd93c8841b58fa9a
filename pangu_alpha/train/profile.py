"""A trace of a few training steps, for chrome://tracing and https://ui.perfetto.dev, and a table of operators.

On the CPU, MindSpore's profiler records every operator of the compiled graph (name, start, duration) in its file
`cpu_op_execute_timestamp_*.txt`.  Its own timeline of them has no steps, times since 1970 as strings, and lets
operators that overlap hide each other; so the trace is written here.  On Ascend the profiler's own
trace_view.json, which also holds the device's streams, is taken as it is.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.files import atomic_write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Operator:
    """One run of one operator."""

    name: str
    """Where it stands in the network, as MindSpore names it."""
    kind: str
    """Its type: MatMul, LayerNorm, ..."""
    start: int
    """Nanoseconds since 1970."""
    duration: int
    """Nanoseconds."""


@dataclass(frozen=True)
class Step:
    """One training step on the host's clock."""

    number: int
    """Number of the step."""
    start: int
    """Nanoseconds since 1970."""
    end: int
    """Nanoseconds since 1970."""


def parse_steps(text: str) -> tuple[int, int]:
    """The first and last step of `first-last`, as checked by the configuration."""
    first, _, last = text.partition("-")
    return int(first), int(last)


def read_operators(path: str | Path) -> list[Operator]:
    """Operators of a `cpu_op_execute_timestamp_*.txt`, by start time.

    A line holds `full name;kind of host;start,duration,thread start,duration,thread ...` with starts in nanoseconds
    and durations in milliseconds.
    """
    operators = []
    for line in Path(path).read_text().splitlines():
        fields = line.strip().split(";")
        if len(fields) < 3:
            continue
        name = fields[0]
        kind = re.sub(r"-op\d+$", "", name.rsplit("/", 1)[-1])
        for run in fields[-1].split():
            start, milliseconds, _ = run.split(",")
            operators.append(Operator(name, kind, int(start), round(float(milliseconds) * 1e6)))
    return sorted(operators, key=lambda operator: operator.start)


def operators_within(operators: Iterable[Operator], steps: Sequence[Step]) -> list[Operator]:
    """The operators that ran inside one of the steps: an input pipeline or a validation between them does not count."""
    return [item for item in operators if any(step.start <= item.start <= step.end for step in steps)]


def chrome_trace(steps: Sequence[Step], operators: Sequence[Operator]) -> dict[str, Any]:
    """The trace in Chrome's JSON form: a row of steps, and below it rows of operators, as many as ran at once.

    Times are microseconds since the first step's start.
    """
    origin = min([step.start for step in steps] + [operator.start for operator in operators], default=0)
    events: list[dict[str, Any]] = [_label("process_name", 0, "training"), _label("thread_name", 0, "steps")]
    for step in steps:
        events.append(_span(f"step {step.number}", "step", 0, step.start - origin, step.end - step.start, {}))
    row_ends: list[int] = []
    for operator in sorted(operators, key=lambda item: item.start):
        free = (row for row, end in enumerate(row_ends) if end <= operator.start)
        row = next(free, len(row_ends))
        row_ends[row : row + 1] = [operator.start + operator.duration]
        arguments = {"name in the graph": operator.name}
        events.append(_span(operator.kind, "operator", row + 1, operator.start - origin, operator.duration, arguments))
    events += [_label("thread_name", row + 1, f"operators {row + 1}") for row in range(len(row_ends))]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _label(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": row, "args": {"name": name}}


def _span(name: str, category: str, row: int, start: int, duration: int, arguments: dict[str, Any]) -> dict[str, Any]:
    times = {"ts": start / 1000, "dur": duration / 1000}
    return {"ph": "X", "name": name, "cat": category, "pid": 1, "tid": row, **times, "args": arguments}


def operator_table(steps: Sequence[Step], operators: Sequence[Operator]) -> str:
    """Operators by total time, as tab-separated lines: kind, calls a step, milliseconds a step, share of the steps.

    The last line is the time in which no operator ran: Python, launches, waiting for data.
    """
    total = sum(step.end - step.start for step in steps)
    by_kind: dict[str, list[int]] = defaultdict(list)
    for operator in operators:
        by_kind[operator.kind].append(operator.duration)
    rows = [(kind, len(times) / len(steps), sum(times)) for kind, times in by_kind.items()]
    rows.sort(key=lambda row: -row[2])
    lines = ["operator\tcalls/step\tms/step\tshare"]
    for kind, calls, spent in [*rows, ("(no operator)", 0.0, total - _covered(operators))]:
        lines.append(f"{kind}\t{calls:.4g}\t{spent / len(steps) / 1e6:.3f}\t{spent / total:.1%}")
    return "\n".join(lines) + "\n"


def _covered(operators: Sequence[Operator]) -> int:
    """Nanoseconds in which at least one operator ran; `operators` sorted by start."""
    covered, until = 0, 0
    for operator in operators:
        end = operator.start + operator.duration
        covered += max(0, end - max(until, operator.start))
        until = max(until, end)
    return covered


class StepProfiler:
    """Profiles the steps `first` to `last` of a run and writes `trace.json` and `operators.tsv`.

    Call `before_step` and `after_step` around every step; outside the range they do nothing.  Steps in the range must
    have ended when `after_step` is called (their loss read).  Operators run slower while they are recorded: believe
    shares more than sums, and leave the first two steps out, which compile.

    Args:
        first: first step to profile.
        last: last step to profile.
        directory: where the two files go (the run directory's profile/).
        device: cpu, gpu or ascend.
    """

    def __init__(self, first: int, last: int, directory: str | Path, device: str = "cpu") -> None:
        self.first, self.last, self.directory, self.device = first, last, Path(directory), device
        self._raw = self.directory / "mindspore"
        self._profiler: Any = None
        self._step_start = 0
        self._steps: list[Step] = []

    def before_step(self, step: int) -> None:
        """Start recording when `step` is the first of the range."""
        if not self.first <= step <= self.last:
            return
        if self._profiler is None:
            self._start(step)
        self._step_start = time.time_ns()

    def after_step(self, step: int) -> None:
        """Note the step; write the results after the last of the range."""
        if self._profiler is None:
            return
        self._steps.append(Step(step, self._step_start, time.time_ns()))
        self._profiler.step()
        if step >= self.last:
            self.close()

    def _start(self, step: int) -> None:
        from mindspore import profiler

        shutil.rmtree(self._raw, ignore_errors=True)
        self._raw.mkdir(parents=True)
        activities = [profiler.ProfilerActivity.CPU]
        if self.device != "cpu":
            other = profiler.ProfilerActivity.NPU if self.device == "ascend" else profiler.ProfilerActivity.GPU
            activities.append(other)
        # On the CPU the recorded times are read here; MindSpore's own analysis would start processes for them.
        ready = profiler.tensorboard_trace_handler(str(self._raw), analyse_flag=self.device == "ascend")
        # A schedule tells the profiler how many steps come, or it warns that it was stopped too early.
        plan = profiler.schedule(wait=0, warmup=0, active=self.last - step + 1, repeat=1)
        self._profiler = profiler.profile(
            activities=activities, schedule=plan, on_trace_ready=ready, start_profile=False
        )
        self._profiler.start()

    def close(self) -> None:
        """Stop recording and write what there is (also for a run that ends within the range)."""
        if self._profiler is None:
            return
        self._profiler.stop()
        self._profiler = None
        if self._steps:
            self._write()

    def _write(self) -> None:
        trace = self.directory / "trace.json"
        recorded = sorted(self._raw.rglob("cpu_op_execute_timestamp_*.txt"))
        timelines = sorted(self._raw.rglob("trace_view.json"))
        operators = [operator for path in recorded for operator in read_operators(path)]
        operators = operators_within(operators, self._steps)
        with atomic_write(trace) as file:
            if timelines:
                file.write(timelines[0].read_bytes())
            else:
                file.write(json.dumps(chrome_trace(self._steps, operators)).encode())
        if not timelines:  # nothing in the raw files that MindSpore's own viewers could use
            shutil.rmtree(self._raw, ignore_errors=True)
        if not timelines and not operators:
            logger.warning("the profiler recorded no operators on %s; %s holds the steps alone", self.device, trace)
        table = operator_table(self._steps, operators)
        with atomic_write(self.directory / "operators.tsv") as file:
            file.write(table.encode())
        if operators:
            top = [line.split("\t") for line in table.splitlines()[1:6]]
            spent = ", ".join(f"{kind} {share}" for kind, _, _, share in top)
            logger.info("steps %d-%d spent: %s", self._steps[0].number, self._steps[-1].number, spent)
        logger.info("profile: open %s in https://ui.perfetto.dev or chrome://tracing", trace)
