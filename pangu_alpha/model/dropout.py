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
from mindspore.ops.primitive import constexpr

from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.sharding import UNSHARDED, Sharding

_FIRST_MULTIPLIER = 0x7FEB352D
_SECOND_MULTIPLIER = 0x846CA68B
_GOLDEN_RATIO = 0x9E3779B9


def _unsigned(value: int) -> Tensor:
    return Tensor(np.array(value & 0xFFFFFFFF, np.uint32))


@constexpr
def _row_numbers(shape: tuple[int, ...], part: int) -> Tensor:
    """uint32, `shape` with one column; of the n-th part of a batch whose parts all have this shape."""
    rows = shape[:-1]
    count = int(np.prod(rows))
    return Tensor(np.arange(part * count, (part + 1) * count, dtype=np.uint32).reshape((*rows, 1)))


@constexpr
def _mixed_columns(shape: tuple[int, ...]) -> Tensor:
    """`mix` of each column's number: uint32 [columns]."""
    return Tensor(_mixed(np.arange(shape[-1], dtype=np.uint32)))


def _mixed(value: np.ndarray) -> np.ndarray:
    """What `Mix` computes, on the host: uint32 -> uint32."""
    value = (value ^ (value >> np.uint32(16))) * np.uint32(_FIRST_MULTIPLIER)
    value = (value ^ (value >> np.uint32(15))) * np.uint32(_SECOND_MULTIPLIER)
    return value ^ (value >> np.uint32(16))


class Mix(nn.Cell):
    """A bijection of the unsigned 32-bit integers that spreads every input bit over the output: uint32 -> uint32."""

    def __init__(self, role: str, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.multiply = sharding.shard(ops.Mul(), f"{role}_scalar")
        self.xor = sharding.shard(ops.BitwiseXor(), f"{role}_pair")
        self.shift = sharding.shard(ops.operations.RightShift(), f"{role}_scalar")
        self.first, self.second = _unsigned(_FIRST_MULTIPLIER), _unsigned(_SECOND_MULTIPLIER)
        self.sixteen, self.fifteen = _unsigned(16), _unsigned(15)

    def construct(self, value: Tensor) -> Tensor:
        """uint32 of any shape -> uint32 of that shape."""
        value = self.multiply(self.xor(value, self.shift(value, self.sixteen)), self.first)
        value = self.multiply(self.xor(value, self.shift(value, self.fifteen)), self.second)
        return self.xor(value, self.shift(value, self.sixteen))


class DropoutKey(nn.Cell):
    """The key of one micro step's masks, from the run's seed and the count of micro steps: int32 [1] -> uint32 [1]."""

    def __init__(self, seed: int, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.mix_step, self.mix = Mix("vector", sharding), Mix("vector", sharding)
        self.cast = sharding.shard(ops.Cast(), "vector")
        self.xor = sharding.shard(ops.BitwiseXor(), "vector_scalar")
        self.seed = _unsigned(seed * _GOLDEN_RATIO + 1)

    def construct(self, micro_step: Tensor) -> Tensor:
        """`micro_step` = step * micro batches + micro batch, int32 [1] -> uint32 [1]."""
        return self.mix(self.xor(self.mix_step(self.cast(micro_step, ms.uint32)), self.seed))


class Dropout(nn.Cell):
    """Zeroes a share `rate` of the elements and scales the others by 1 / (1 - rate).  [..., columns] -> same.

    `site` names the place in the model; two sites never share a mask.  Without a key nothing is dropped.
    """

    def __init__(self, rate: float, site: int, numerics: Numerics, role: str, sharding: Sharding = UNSHARDED) -> None:
        super().__init__()
        self.rate = rate
        self.counter, self.part = numerics.counter_dropout, sharding.data_part
        seed0, seed1 = sharding.dropout_seeds(role, site)
        self.framework_dropout = sharding.shard(ops.Dropout(1.0 - rate, seed0, seed1), role)
        self.mix_row, self.mix = Mix(role, sharding), Mix(role, sharding)
        self.add_site = sharding.shard(ops.Add(), "vector_scalar")
        self.xor_key = sharding.shard(ops.BitwiseXor(), f"{role}_vector")
        self.xor_column = sharding.shard(ops.BitwiseXor(), f"{role}_vector")
        self.less = sharding.shard(ops.Less(), f"{role}_scalar")
        self.cast_mask, self.cast = sharding.shard(ops.Cast(), role), sharding.shard(ops.Cast(), role)
        self.scale_mask = sharding.shard(ops.Mul(), f"{role}_scalar")
        self.multiply = sharding.shard(ops.Mul(), f"{role}_pair")
        self.site = _unsigned((site + 1) * _GOLDEN_RATIO)
        self.limit = _unsigned(int((1.0 - rate) * 2**32) if rate else 0xFFFFFFFF)
        self.scale = Tensor(1.0 / (1.0 - rate), ms.float32)

    def mask(self, shape: tuple[int, ...], key: Tensor) -> Tensor:
        """bool of `shape`, True where an element is kept; the last axis is the columns, all others are the rows."""
        row = self.mix_row(self.xor_key(_row_numbers(shape, self.part), self.add_site(key, self.site)))
        return self.less(self.mix(self.xor_column(row, _mixed_columns(shape))), self.limit)

    def construct(self, value: Tensor, key: Tensor = None) -> Tensor:
        """`value` of any shape, `key` uint32 [1] or None -> the same shape and type."""
        if key is None or self.rate == 0.0:
            return value
        if not self.counter:
            return self.framework_dropout(value)[0]
        kept = self.scale_mask(self.cast_mask(self.mask(value.shape, key), ms.float32), self.scale)
        return self.multiply(value, self.cast(kept, value.dtype))
