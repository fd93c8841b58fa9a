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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from machine import describe_machine
from mindspore import Tensor, nn, ops
from step_report import aligned

from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.model.activation import GeluTanh, build_activation
from pangu_alpha.model.loss import TokenLoss
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.operators import AddBias, Normalize, ScaleColumns, Softmax
from pangu_alpha.parallel.context import set_single_device_context

ROOT = Path(__file__).resolve().parent.parent
EPSILON = 1e-5
MASKED = -10000.0


class Function(nn.Cell):
    """A function of tensors, or a cell, as a graph of its own."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def construct(self, *inputs: Tensor) -> Tensor:
        """Inputs -> output."""
        return self.function(*inputs)


class WithGradient(nn.Cell):
    """The output and the gradients of all inputs; the last input is the gradient of the output."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        self.cell = cell
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        """Inputs and the gradient of the output -> output, gradients of the inputs."""
        return self.cell(*inputs[:-1]), self.gradient(self.cell)(*inputs)


# -- the forms: module-level names, as the graph compiler reads their source ------------------------------------------

layer_norm_operator = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=EPSILON)
mean_of_row = ops.ReduceMean(keep_dims=True)
matmul = ops.MatMul()
bias_add = ops.BiasAdd()
softmax_operator = ops.Softmax(axis=-1)
sparse_cross_entropy = ops.SparseSoftmaxCrossEntropyWithLogits()
l2_loss = ops.L2Loss()
sum_keeping = ops.ReduceSum(keep_dims=True)


def gelu_tanh_written_out(x: Tensor) -> Tensor:
    """The formula as it is published; the Tanh operator is 1 beyond 5, which is wrong by 1e-4."""
    return 0.5 * x * (1.0 + ops.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def layer_norm_by_operator(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The operator alone, without its statistics."""
    return layer_norm_operator(x, gamma, beta)[0]


def layer_norm_written_out(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The formula."""
    centered = x - mean_of_row(x, -1)
    return centered * ops.rsqrt(mean_of_row(ops.square(centered), -1) + EPSILON) * gamma + beta


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ARG001
    """Without the bias: what the bias costs is the difference."""
    return matmul(x, weight)


def product_and_add(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A bias that is broadcast."""
    return matmul(x, weight) + bias


def product_and_bias_add(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The operator for it."""
    return bias_add(matmul(x, weight), bias)


def softmax_written_out(x: Tensor) -> Tensor:
    """The formula."""
    shifted = ops.exp(x - ops.stop_gradient(ops.ReduceMax(keep_dims=True)(x, -1)))
    return shifted / sum_keeping(shifted, -1)


def add_broadcast(scores: Tensor, mask: Tensor) -> Tensor:
    """One mask for all heads."""
    return scores + mask


def square_sum_by_l2_loss(x: Tensor) -> Tensor:
    """L2Loss is half of it."""
    return 2.0 * l2_loss(x)


def square_sum(x: Tensor) -> Tensor:
    """Over all axes at once."""
    return ops.square(x).sum()


def square_sum_by_rows(x: Tensor) -> Tensor:
    """Over the last axis first."""
    return ops.square(x).sum(-1).sum()


class SparseCrossEntropy(nn.Cell):
    """Mean cross entropy by SparseSoftmaxCrossEntropyWithLogits, which has no way to leave padding out."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels = labels

    def construct(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        return sparse_cross_entropy(logits, self.labels)


class FunctionalCrossEntropy(SparseCrossEntropy):
    """`ops.cross_entropy`."""

    def construct(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        return ops.cross_entropy(logits, self.labels)


class WrittenOutCrossEntropy(SparseCrossEntropy):
    """Log of the sum of exponentials, minus the label's logit."""

    def construct(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        highest = ops.stop_gradient(ops.ReduceMax(keep_dims=True)(logits, -1))
        total = ops.log(sum_keeping(ops.exp(logits - highest), -1)) + highest
        return ops.reduce_mean(total - ops.gather_d(logits, 1, ops.reshape(self.labels, (-1, 1))))


class ModelCrossEntropy(SparseCrossEntropy):
    """The mean of the model's own loss of each token."""

    def __init__(self, labels: Tensor, vocab_size: int) -> None:
        super().__init__(labels)
        self.token_loss = TokenLoss(vocab_size)

    def construct(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        return ops.reduce_mean(self.token_loss(logits, self.labels))


class ModelLayerNorm(nn.Cell):
    """The parts of the model's LayerNorm, with its parameters as inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize, self.scale, self.shift = Normalize(EPSILON), ScaleColumns(), AddBias()

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """[M, H], [H], [H] -> [M, H]."""
        return self.shift(self.scale(self.normalize(x)[0], gamma), beta)


class ModelLinear(nn.Cell):
    """The parts of the model's Linear, with its parameters as inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul, self.add_bias = ops.MatMul(), AddBias()

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[M, H], [H, F], [F] -> [M, F]."""
        return self.add_bias(self.matmul(x, weight), bias)


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass
class Form:
    """One way to compute a function, and its times."""

    group: str
    name: str
    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    taken: bool = False
    """By the model, on a CPU."""
    differentiated: bool = True
    """Whether training needs its gradient."""
    forward: list[float] = field(default_factory=list)
    with_gradient: list[float] = field(default_factory=list)


def build_forms(config: Config) -> list[Form]:
    """All forms, at the sizes of `config`."""
    model = config.model
    rows, hidden, inner, vocabulary = (
        config.train.batch_size * model.seq_length, model.hidden_size, model.feed_forward_size, model.vocab_size
    )  # fmt: skip
    heads = (config.train.batch_size, model.num_heads, model.seq_length, model.seq_length)
    random = np.random.default_rng(1)

    def noise(*shape: int) -> Tensor:
        return Tensor(random.standard_normal(shape, dtype=np.float32))

    mask = MASKED * (1.0 - np.tril(np.ones(heads[2:], np.float32)))
    one_mask, all_masks = (Tensor(np.broadcast_to(mask, (heads[0], n, *heads[2:])).copy()) for n in (1, heads[1]))
    labels = Tensor(random.integers(0, vocabulary, rows).astype(np.int32))
    narrow, wide, scores, logits = noise(rows, hidden), noise(rows, inner), noise(*heads), noise(rows, vocabulary)
    norm, linear = (narrow, noise(hidden), noise(hidden)), (narrow, noise(hidden, inner), noise(inner))
    dense = (narrow, Tensor(linear[1].asnumpy().T.copy()), linear[2])
    word_table = noise(vocabulary, hidden)
    return [
        Form("nothing", "a call of a graph that does nothing much", ops.Neg(), (noise(1),)),
        Form("gelu", "GeLU operator", ops.GeLU(), (wide,)),
        Form("gelu", "tanh written out (inexact)", gelu_tanh_written_out, (wide,)),
        Form("gelu", "x sigmoid(...)", GeluTanh(), (wide,)),
        Form("gelu", "the same, gradient by hand", build_activation("gelu_tanh", Numerics()), (wide,), taken=True),
        Form("layer norm", "LayerNorm operator", layer_norm_by_operator, norm),
        Form("layer norm", "written out, with broadcasts", layer_norm_written_out, norm),
        Form("layer norm", "equal shapes, gradient by hand", ModelLayerNorm(), norm, taken=True),
        Form("softmax", "Softmax operator", softmax_operator, (scores,)),
        Form("softmax", "written out", softmax_written_out, (scores,)),
        Form("softmax", "Exp of LogSoftmax", Softmax(), (scores,), taken=True),
        Form("mask", "added to all heads by broadcast", add_broadcast, (scores, one_mask), differentiated=False),
        Form("mask", "one copy a head", add_broadcast, (scores, all_masks), taken=True, differentiated=False),
        Form("linear", "MatMul without bias", product, linear),
        Form("linear", "MatMul + bias", product_and_add, linear),
        Form("linear", "MatMul, BiasAdd", product_and_bias_add, linear),
        Form("linear", "ops.dense", ops.dense, dense),
        Form("linear", "MatMul, BiasAdd, gradient by product", ModelLinear(), linear, taken=True),
        Form("cross entropy", "ops.cross_entropy", FunctionalCrossEntropy(labels), (logits,)),
        Form("cross entropy", "written out", WrittenOutCrossEntropy(labels), (logits,)),
        Form("cross entropy", "SparseSoftmaxCrossEntropy...", SparseCrossEntropy(labels), (logits,)),
        Form("cross entropy", "LogSoftmax, NLLLoss", ModelCrossEntropy(labels, vocabulary), (logits,), taken=True),
        Form("square sum", "L2Loss (loses digits)", square_sum_by_l2_loss, (word_table,), differentiated=False),
        Form("square sum", "square, sum", square_sum, (word_table,), differentiated=False),
        Form("square sum", "square, sum of rows, sum", square_sum_by_rows, (word_table,), True, differentiated=False),
    ]  # fmt: skip


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
