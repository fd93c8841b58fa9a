"""The activation of the feed-forward part, as one named operator."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import SigmoidGrad

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.sharding import UNSHARDED, Sharding


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

    def quadratic(self, value: Tensor) -> Tensor:
        """The cubic term over the value."""
        return self.cubic * value * value

    def gate(self, value: Tensor) -> Tensor:
        """What the value is multiplied with."""
        return self.sigmoid(value * (self.linear + self.quadratic(value)))

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return value * self.gate(value)


class GeluTanhByHand(GeluTanh):
    """GeluTanh with its gradient written out, `gate + x gate'`: on the CPU in two thirds of the derived one's time."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid_gradient, self.cast = SigmoidGrad(), ops.Cast()

    def bprop(self, value: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        """The gradient of the value."""
        wide = self.cast(value, ms.float32)  # its square may leave the range of float16
        gate = self.gate(wide)  # in float32 the compiler takes this, and the quadratic term, of the forward pass
        slope = self.linear + 3.0 * self.quadratic(wide)
        derivative = gate + self.sigmoid_gradient(gate, wide * slope)
        return (gradient * self.cast(derivative, gradient.dtype),)


class Gelu(nn.Cell):
    """GeluTanh as MindSpore's own operator, which accelerators have in one piece."""

    def __init__(self, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.gelu = sharding.shard(ops.GeLU(), "activation")

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return self.gelu(value)


class GeluErf(nn.Cell):
    """`x * (1 + erf(x / sqrt(2))) / 2`, any shape: what the Hugging Face port computes."""

    def __init__(self, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.divide, self.halve = (sharding.shard(ops.Mul(), "activation_scalar") for _ in range(2))
        self.erf = sharding.shard(ops.Erf(), "activation")
        self.add = sharding.shard(ops.Add(), "activation_scalar")
        self.multiply = sharding.shard(ops.Mul(), "activation_pair")
        self.cast = ops.Cast()
        self.reciprocal_root, self.half, self.one = (Tensor(x, ms.float32) for x in (1.0 / math.sqrt(2.0), 0.5, 1.0))

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        dtype = value.dtype
        error = self.erf(self.divide(value, self.cast(self.reciprocal_root, dtype)))
        gate = self.add(error, self.cast(self.one, dtype))
        return self.multiply(self.halve(value, self.cast(self.half, dtype)), gate)


class FastGelu(nn.Cell):
    """`x * sigmoid(1.702 x)`, any shape: the fast GELU of later Ascend code."""

    def __init__(self, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.scale = sharding.shard(ops.Mul(), "activation_scalar")
        self.sigmoid = sharding.shard(ops.Sigmoid(), "activation")
        self.multiply = sharding.shard(ops.Mul(), "activation_pair")
        self.cast = ops.Cast()
        self.slope = Tensor(1.702, ms.float32)

    def construct(self, value: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return self.multiply(value, self.sigmoid(self.scale(value, self.cast(self.slope, value.dtype))))


def build_activation(name: str, numerics: Numerics, sharding: Sharding = UNSHARDED) -> nn.Cell:
    """gelu_tanh, gelu_erf or fast_gelu, in the form that suits the device."""
    if name == "gelu_tanh":
        return Gelu(sharding) if numerics.fused_operators else GeluTanhByHand()
    return (GeluErf if name == "gelu_erf" else FastGelu)(sharding)
