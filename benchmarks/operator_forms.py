"""What `operators.py` times: several forms of each function, as graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from pangu_alpha.config import Config, OptimizerConfig
from pangu_alpha.model.activation import GeluTanh, build_activation
from pangu_alpha.model.loss import HeadLoss, TokenLoss
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.operators import AddBias, Normalize, ScaleColumns, Softmax, WeightedValues
from pangu_alpha.train.optimizer import build_optimizer

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
        self.head = ops.MatMul(transpose_b=True)

    def construct(self, hidden: Tensor, word_table: Tensor) -> Tensor:
        """[M, H], [V, H] -> []."""
        return self.loss(self.head(hidden, word_table))

    def loss(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        return sparse_cross_entropy(logits, self.labels)


class FunctionalCrossEntropy(SparseCrossEntropy):
    """`ops.cross_entropy`."""

    def loss(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        return ops.cross_entropy(logits, self.labels)


class WrittenOutCrossEntropy(SparseCrossEntropy):
    """Log of the sum of exponentials, minus the label's logit."""

    def loss(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        highest = ops.stop_gradient(ops.ReduceMax(keep_dims=True)(logits, -1))
        total = ops.log(sum_keeping(ops.exp(logits - highest), -1)) + highest
        return ops.reduce_mean(total - ops.gather_d(logits, 1, ops.reshape(self.labels, (-1, 1))))


class TokenCrossEntropy(SparseCrossEntropy):
    """The mean of the loss of each token, as validation computes it."""

    def __init__(self, labels: Tensor, vocab_size: int) -> None:
        super().__init__(labels)
        self.token_loss = TokenLoss(vocab_size)

    def loss(self, logits: Tensor) -> Tensor:
        """[M, V] -> []."""
        return ops.reduce_mean(self.token_loss(logits, self.labels))


class ModelCrossEntropy(SparseCrossEntropy):
    """The mean of the loss of each token, as training computes it: with the head."""

    def __init__(self, labels: Tensor, vocab_size: int) -> None:
        super().__init__(labels)
        self.head_loss = HeadLoss(vocab_size)

    def construct(self, hidden: Tensor, word_table: Tensor) -> Tensor:
        """[M, H], [V, H] -> []."""
        return ops.reduce_mean(self.head_loss(hidden, word_table, self.labels)[0])


class Values(nn.Cell):
    """A softmax, then the product with the values."""

    def __init__(self, softmax: ops.Primitive | nn.Cell) -> None:
        super().__init__()
        self.softmax, self.product = softmax, ops.BatchMatMul()

    def construct(self, scores: Tensor, value: Tensor) -> Tensor:
        """[B, N, S, T], [B, N, T, D] -> [B, N, S, D]."""
        return self.product(self.softmax(scores), value)


class ModelValues(nn.Cell):
    """The model's softmax and values without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.weighted_values = WeightedValues()

    def construct(self, scores: Tensor, value: Tensor) -> Tensor:
        """[B, N, S, T], [B, N, T, D] -> [B, N, S, D]."""
        return self.weighted_values(scores, value)[0]


class Update(nn.Cell):
    """One update of a weight of the word table's size."""

    def __init__(self, weight: Tensor, config: OptimizerConfig, numerics: Numerics) -> None:
        super().__init__()
        self.weight = Parameter(weight, name="weight")
        self.bias, self.none = Parameter(Tensor([0.0], ms.float32), name="bias"), Tensor([0.0], ms.float32)
        self.optimizer = build_optimizer([self.weight, self.bias], config, numerics)

    def construct(self, gradient: Tensor) -> Tensor:
        """[V, H] -> the weight, [V, H]."""
        return ops.depend(self.weight, self.optimizer((gradient, self.none)))


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
    narrow, wide, scores = noise(rows, hidden), noise(rows, inner), noise(*heads)
    attention = (scores, noise(*heads[:3], model.head_size))
    norm, linear = (narrow, noise(hidden), noise(hidden)), (narrow, noise(hidden, inner), noise(inner))
    dense = (narrow, Tensor(linear[1].asnumpy().T.copy()), linear[2])
    word_table = noise(vocabulary, hidden)
    head = (narrow, word_table)
    one_operator, two_operators = (
        Update(word_table, config.optimizer, Numerics(fused_operators=fused)) for fused in (True, False)
    )
    return [
        Form("nothing", "a call of a graph that does nothing much", ops.Neg(), (noise(1),)),
        Form("gelu", "GeLU operator", ops.GeLU(), (wide,)),
        Form("gelu", "tanh written out (inexact)", gelu_tanh_written_out, (wide,)),
        Form("gelu", "x sigmoid(...)", GeluTanh(), (wide,)),
        Form("gelu", "the same, gradient by hand", build_activation("gelu_tanh", Numerics()), (wide,), taken=True),
        Form("layer norm", "LayerNorm operator", layer_norm_by_operator, norm),
        Form("layer norm", "written out, with broadcasts", layer_norm_written_out, norm),
        Form("layer norm", "equal shapes, gradient by hand", ModelLayerNorm(), norm, taken=True),
        Form("attention", "written out, product", Values(Function(softmax_written_out)), attention),
        Form("attention", "Softmax operator, product", Values(softmax_operator), attention),
        Form("attention", "Exp of LogSoftmax, product", Values(Softmax()), attention),
        Form("attention", "Softmax, product, gradient by hand", ModelValues(), attention, taken=True),
        Form("mask", "added to all heads by broadcast", add_broadcast, (scores, one_mask), differentiated=False),
        Form("mask", "one copy a head", add_broadcast, (scores, all_masks), taken=True, differentiated=False),
        Form("linear", "MatMul without bias", product, linear),
        Form("linear", "MatMul + bias", product_and_add, linear),
        Form("linear", "MatMul, BiasAdd", product_and_bias_add, linear),
        Form("linear", "ops.dense", ops.dense, dense),
        Form("linear", "MatMul, BiasAdd, gradient by product", ModelLinear(), linear, taken=True),
        Form("head loss", "product, ops.cross_entropy", FunctionalCrossEntropy(labels), head),
        Form("head loss", "product, written out", WrittenOutCrossEntropy(labels), head),
        Form("head loss", "product, SparseSoftmaxCrossEntropy...", SparseCrossEntropy(labels), head),
        Form("head loss", "product, LogSoftmax, NLLLoss", TokenCrossEntropy(labels, vocabulary), head),
        Form("head loss", "product, Softmax, gradient by hand", ModelCrossEntropy(labels, vocabulary), head, True),
        Form("square sum", "L2Loss (loses digits)", square_sum_by_l2_loss, (word_table,), differentiated=False),
        Form("square sum", "square, sum", square_sum, (word_table,), differentiated=False),
        Form("square sum", "square, sum of rows, sum", square_sum_by_rows, (word_table,), True, differentiated=False),
        Form("update", "AdamWeightDecay operator", one_operator, (word_table,), differentiated=False),
        Form("update", "decay, Adam operator", two_operators, (word_table,), True, differentiated=False),
    ]  # fmt: skip
