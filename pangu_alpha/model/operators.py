"""Parts of the model in the form that the CPU computes fastest; docs/speed.md has the times.

For each of them MindSpore has an operator of its own, which accelerators have in one fused piece
(`Numerics.fused_operators` takes those).  On the CPU that operator, or the gradient that is derived for it, takes two
to five times as long as the same function put together here.  Two things are slow there and avoided: arithmetic that
broadcasts (equal shapes are several times faster, and repeating a row or column costs little), and sums over an axis
of a large tensor other than by a matrix product.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class AddBias(nn.Cell):
    """`rows + bias`:  [M, N], [N] -> [M, N].  The gradient of the bias is a row of ones times that of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.bias_add, self.matmul, self.ones, self.reshape = ops.BiasAdd(), ops.MatMul(), ops.Ones(), ops.Reshape()

    def construct(self, rows: Tensor, bias: Tensor) -> Tensor:
        """[M, N], [N] -> [M, N]."""
        return self.bias_add(rows, bias)

    def bprop(self, rows: Tensor, bias: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """The gradients of rows and bias."""
        ones = self.ones((1, rows.shape[0]), rows.dtype)
        return gradient, self.reshape(self.matmul(ones, gradient), (-1,))


class Normalize(nn.Cell):
    """`n = (x - mean) d`,  `d = 1 / sqrt(variance + epsilon)` over the last axis:  [M, N] -> n and d, both [M, N].

    With g the gradient of n, that of x is `d (g - mean(g) - n mean(g n))`; nobody asks for that of d.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.mean_of_row, self.rsqrt, self.repeat = ops.ReduceMean(keep_dims=True), ops.Rsqrt(), ops.Tile()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of each row in all its columns: [M, N] -> [M, N]."""
        return self.repeat(self.mean_of_row(value, -1), (1, value.shape[-1]))

    def construct(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """[M, N] -> normed and reciprocal deviation, both [M, N]."""
        centered = value - self.mean(value)
        variance = self.mean_of_row(centered * centered, -1)
        deviation = self.repeat(self.rsqrt(variance + self.epsilon), (1, value.shape[-1]))
        return centered * deviation, deviation

    def bprop(self, value: Tensor, outputs: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> tuple[Tensor]:  # noqa: ARG002
        """The gradient of the value."""
        normed, deviation = outputs
        gradient = gradients[0]
        return (deviation * (gradient - self.mean(gradient) - normed * self.mean(gradient * normed)),)


class ScaleColumns(nn.Cell):
    """`rows * scale`:  [M, N], [N] -> [M, N]."""

    def __init__(self) -> None:
        super().__init__()
        self.repeat, self.reshape, self.multiply = ops.Tile(), ops.Reshape(), ops.Mul()

    def construct(self, rows: Tensor, scale: Tensor) -> Tensor:
        """[M, N], [N] -> [M, N]."""
        return self.multiply(rows, self.repeat(self.reshape(scale, (1, -1)), (rows.shape[0], 1)))


class WeightedValues(nn.Cell):
    """`softmax(scores) V`:  scores [B, N, S, T], V [B, N, T, D] -> context [B, N, S, D], and the weights.

    With P the weights, O the context and dO its gradient, that of the scores is `P (dO V^T - sum over D of dO O)`; the
    sum, one number a row, enters the product as a column of dO that meets a column of ones beside V.
    """

    def __init__(self) -> None:
        super().__init__()
        self.softmax = ops.Softmax(axis=-1)
        self.product, self.product_of_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_a=True)
        self.product_with_transposed = ops.BatchMatMul(transpose_b=True)
        self.multiply, self.sum_by_product, self.reshape = ops.Mul(), ops.MatMul(), ops.Reshape()
        self.beside, self.fill = ops.Concat(axis=3), ops.Fill()

    def construct(self, scores: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, S, T], [B, N, T, D] -> [B, N, S, D] and the weights [B, N, S, T]; nobody asks for their gradient."""
        weights = self.softmax(scores)
        return self.product(weights, value), weights

    def bprop(
        self, scores: Tensor, value: Tensor, outputs: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The gradients of scores and value."""
        (context, weights), gradient = outputs, gradients[0]
        batch, heads, steps, size = context.shape
        pairs = self.reshape(self.multiply(gradient, context), (-1, size))
        sums = self.sum_by_product(pairs, self.fill(context.dtype, (size, 1), -1.0))
        sums = self.reshape(sums, (batch, heads, steps, 1))
        ones = self.fill(value.dtype, (batch, heads, scores.shape[3], 1), 1.0)
        difference = self.product_with_transposed(self.beside((gradient, sums)), self.beside((value, ones)))
        return self.multiply(weights, difference), self.product_of_transposed(weights, gradient)


class Softmax(nn.Cell):
    """Softmax over the last axis as `exp(log softmax)`, whose gradient is one operator: any shape -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.log_softmax, self.exp = ops.LogSoftmax(axis=-1), ops.Exp()

    def construct(self, scores: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return self.exp(self.log_softmax(scores))
