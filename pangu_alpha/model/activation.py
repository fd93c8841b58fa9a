"""The activation of the feed-forward part, as one named operator."""

from __future__ import annotations

import math

from mindspore import Tensor, nn, ops


class GeluTanh(nn.Cell):
    """`x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3))`, any shape.

    Algebraically the tanh form 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) that the released weights were trained
    with (nn.GELU of their time), as (1 + tanh(u)) / 2 = sigmoid(2u); the CPU's own GeLU operator takes
    three to five times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = ops.Sigmoid()
        self.linear = 2.0 * math.sqrt(2.0 / math.pi)
        self.cubic = self.linear * 0.044715

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return value * self.sigmoid(value * (self.linear + self.cubic * value * value))


class GeluErf(nn.Cell):
    """`x * (1 + erf(x / sqrt(2))) / 2`, any shape: what the Hugging Face port computes."""

    def __init__(self) -> None:
        super().__init__()
        self.erf = ops.Erf()
        self.scale = 1.0 / math.sqrt(2.0)

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return 0.5 * value * (1.0 + self.erf(value * self.scale))


class FastGelu(nn.Cell):
    """`x * sigmoid(1.702 x)`, any shape: the fast GELU of later Ascend code."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = ops.Sigmoid()

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return value * self.sigmoid(1.702 * value)


ACTIVATIONS: dict[str, type[nn.Cell]] = {"gelu_tanh": GeluTanh, "gelu_erf": GeluErf, "fast_gelu": FastGelu}
