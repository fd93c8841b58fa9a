"""Dropout whose masks depend on where and when, never on a stream.

MindSpore's own Dropout restarts its stream in a new process, so a resumed run would part from the uninterrupted
one.  Here a mask is a pure function of (seed, step, micro batch, site, index): any step can be computed again alone,
and ranks that hold parts of one tensor draw the parts of one mask.

    key   = mix(seed, micro step)                          one number, made once a micro step
    row   = mix(row index ^ (key + site * odd number))     one number a row
    column = mix(column index)                             constant
    value = mix(row ^ column);  keep where value < (1 - rate) * 2**32

`mix` is two rounds of multiply and xor-shift on unsigned 32-bit integers, which wrap around.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.model.numerics import Numerics

_FIRST_MULTIPLIER = 0x7FEB352D
_SECOND_MULTIPLIER = 0x846CA68B
_GOLDEN_RATIO = 0x9E3779B9


def _unsigned(value: int) -> Tensor:
    return Tensor(np.array(value & 0xFFFFFFFF, np.uint32))


class Mix(nn.Cell):
    """A bijection of the unsigned 32-bit integers that spreads every input bit over the output: uint32 -> uint32."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply = ops.Mul()
        self.xor = ops.BitwiseXor()
        self.shift = ops.operations.RightShift()
        self.first, self.second = _unsigned(_FIRST_MULTIPLIER), _unsigned(_SECOND_MULTIPLIER)
        self.sixteen, self.fifteen = _unsigned(16), _unsigned(15)

    def construct(self, value: Tensor) -> Tensor:
        """uint32 of any shape -> uint32 of that shape."""
        value = self.multiply(self.xor(value, self.shift(value, self.sixteen)), self.first)
        value = self.multiply(self.xor(value, self.shift(value, self.fifteen)), self.second)
        return self.xor(value, self.shift(value, self.sixteen))


class DropoutKey(nn.Cell):
    """The key of one micro step's masks, from the run's seed and the count of micro steps: int32 [] -> uint32 []."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.mix = Mix()
        self.cast = ops.Cast()
        self.xor = ops.BitwiseXor()
        self.seed = _unsigned(seed * _GOLDEN_RATIO + 1)

    def construct(self, micro_step: Tensor) -> Tensor:
        """`micro_step` = step * micro batches + micro batch, int32 [] -> uint32 []."""
        return self.mix(self.xor(self.mix(self.cast(micro_step, ms.uint32)), self.seed))


class Dropout(nn.Cell):
    """Zeroes a share `rate` of the elements and scales the others by 1 / (1 - rate).  [..., columns] -> same.

    `site` names the place in the model; two sites never share a mask.  Without a key nothing is dropped.
    """

    def __init__(self, rate: float, site: int, numerics: Numerics) -> None:
        super().__init__()
        self.rate = rate
        self.counter = numerics.counter_dropout
        self.framework_dropout = ops.Dropout(keep_prob=1.0 - rate)
        self.mix_row, self.mix_column, self.mix = Mix(), Mix(), Mix()
        self.add, self.less, self.multiply, self.cast = ops.Add(), ops.Less(), ops.Mul(), ops.Cast()
        self.xor, self.reshape = ops.BitwiseXor(), ops.Reshape()
        self.site = _unsigned((site + 1) * _GOLDEN_RATIO)
        self.limit = _unsigned(int((1.0 - rate) * 2**32) if rate else 0xFFFFFFFF)
        self.scale = 1.0 / (1.0 - rate)

    def mask(self, shape: tuple[int, ...], key: Tensor) -> Tensor:
        """bool of `shape`, True where an element is kept; the last axis is the columns, all others are the rows."""
        columns = shape[-1]
        rows = 1
        for size in shape[:-1]:
            rows *= size
        row_index = self.cast(ops.arange(0, rows, 1), ms.uint32)
        row = self.mix_row(self.xor(row_index, self.add(key, self.site)))
        column = self.mix_column(self.cast(ops.arange(0, columns, 1), ms.uint32))
        row = self.reshape(row, shape[:-1] + (1,))
        return self.less(self.mix(self.xor(row, column)), self.limit)

    def construct(self, value: Tensor, key: Tensor = None) -> Tensor:
        """`value` of any shape, `key` uint32 [] or None -> the same shape and type."""
        if key is None or self.rate == 0.0:
            return value
        if not self.counter:
            return self.framework_dropout(value)[0]
        kept = self.cast(self.mask(value.shape, key), value.dtype)
        return self.multiply(value, self.multiply(kept, self.cast(self.scale, value.dtype)))
