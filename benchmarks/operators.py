"""Forms of the same function on this machine's CPU, with MindSpore's own operators: which one should a model take?

    python benchmarks/operators.py [--config configs/quickstart.yaml] [--only gelu,softmax] [key.sub=value ...]

Every form is a compiled graph, called in turns with the others at the sizes of the configured model.  The times are the
best of many calls, since other work only ever slows one down; "with gradient" is the function and the gradients of all
its inputs.  `*` marks what pangu_alpha/model takes on a CPU.  The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from machine import describe_machine
from mindspore import Tensor, nn, ops
from operator_forms import Form, Function, build_forms
from step_report import aligned

from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.parallel.context import set_single_device_context

ROOT = Path(__file__).resolve().parent.parent


class WithGradient(nn.Cell):
    """The output and the gradients of all inputs; the last input is the gradient of the output."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        self.cell = cell
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        """Inputs and the gradient of the output -> output, gradients of the inputs."""
        return self.cell(*inputs[:-1]), self.gradient(self.cell)(*inputs)


def measure(forms: list[Form], seconds: float) -> None:
    """Call all forms in turns for so many seconds (at least three times each) and note their times."""
    random = np.random.default_rng(2)
    calls: list[tuple[Callable[[], Any], list[float]]] = []
    for form in forms:
        cell = Function(form.function)
        output = cell(*form.inputs)
        calls.append((_bound(cell, form.inputs), form.forward))
        if form.differentiated:
            gradient = Tensor(random.standard_normal(output.shape).astype(np.float32))
            both = WithGradient(cell)
            both(*form.inputs, gradient)
            calls.append((_bound(both, (*form.inputs, gradient)), form.with_gradient))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for call, times in calls:
            start = time.perf_counter()
            call()  # blocks on a CPU until the graph has run
            times.append(time.perf_counter() - start)
        rounds += 1


def _bound(cell: nn.Cell, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    return lambda: cell(*inputs)


def describe(forms: list[Form]) -> list[dict[str, Any]]:
    """Plain values: milliseconds, and how many times as long as the form that the model takes."""
    taken = {form.group: _last(form) for form in forms if form.taken}
    return [
        {
            "function": form.group, "form": form.name, "taken": form.taken, "forward_ms": 1e3 * min(form.forward),
            "with_gradient_ms": 1e3 * min(form.with_gradient) if form.differentiated else None,
            "relative": _last(form) / taken[form.group] if form.group in taken else None, "calls": len(form.forward),
        }
        for form in forms
    ]  # fmt: skip


def _last(form: Form) -> float:
    return min(form.with_gradient if form.differentiated else form.forward)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    cells = [["function", "form", "forward ms", "with gradient ms", "x taken"]]
    for row in rows:
        gradient = row["with_gradient_ms"]
        cells.append([
            row["function"], ("* " if row["taken"] else "  ") + row["form"], f"{row['forward_ms']:.2f}",
            "" if gradient is None else f"{gradient:.2f}", f"{row['relative']:.2f}" if row["relative"] else "",
        ])  # fmt: skip
    width = max(len(row[1]) for row in cells)
    return "\n".join(aligned([[row[0], row[1].ljust(width), *row[2:]] for row in cells]))


def main(words: list[str]) -> int:
    """Exit code: 0, 1 (failed) or 2 (bad use)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", default=str(ROOT / "configs" / "quickstart.yaml"), help="default: the quickstart")
    parser.add_argument("--only", default="", help="functions, separated by commas (all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for the measurement (60)")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes of the configuration")
    arguments = parser.parse_intermixed_args(words)
    try:
        config = load_config(arguments.config, arguments.overrides).config
        set_single_device_context("cpu")
        forms = build_forms(config)
        only = set(filter(None, arguments.only.split(",")))
        if unknown := only - {form.group for form in forms}:
            known = ", ".join(dict.fromkeys(form.group for form in forms))
            raise UsageError(f"--only {', '.join(sorted(unknown))}: there is no such function; allowed: {known}")
    except PanguError as error:
        print(f"operators.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    forms = [form for form in forms if not only or form.group in only]
    measure(forms, arguments.seconds)
    rows, machine = describe(forms), describe_machine()
    tokens = config.train.batch_size * config.model.seq_length
    size = f"{tokens} tokens, H {config.model.hidden_size}, V {config.model.vocab_size}"
    print(f"{machine.processor}, {machine.cores} cores ({machine.widest_vectors}), load {machine.load}; "
          f"MindSpore {ms.__version__}; {size}; best of {rows[0]['calls']} calls\n")  # fmt: skip
    print(table(rows))
    print(json.dumps({"machine": dataclasses.asdict(machine), "mindspore": ms.__version__, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
