"""The learning rate of every step, as the official training code computes it."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from pangu_alpha.config import OptimizerConfig


class Schedule(LearningRateSchedule):
    """Linear warmup, then decay evaluated on the whole step count: int32 [] or [1] -> float32 of that shape.

    With peak p, floor f, warmup w and decay steps d (official `utils.py`, LearningRate):

        step <  w:  p * step / w
        step >= w:  cosine      f + (p - f) / 2 * (1 + cos(pi * min(step, d) / d))
                    polynomial  f + (p - f) * (1 - min(step, d) / d)
                    constant    p

    The step counts updates from 0, so the very first update has rate 0, and the decay is well under way when
    the warmup ends: both as published.
    """

    def __init__(self, config: OptimizerConfig) -> None:
        super().__init__()
        peak, floor, steps = config.learning_rate, config.end_learning_rate, config.decay_steps
        self.warmup_steps = config.warmup_steps
        self.warmup = nn.WarmUpLR(peak, config.warmup_steps) if config.warmup_steps else None
        self.decay, self.constant = None, Tensor(peak, ms.float32)
        if floor < peak and config.schedule == "cosine":
            self.decay = nn.CosineDecayLR(floor, peak, steps)
        elif floor < peak and config.schedule == "polynomial":
            self.decay = nn.PolynomialDecayLR(peak, floor, steps, power=1.0)

    def construct(self, global_step: Tensor) -> Tensor:
        """The rate of the update that follows `global_step` updates."""
        if self.decay is None:
            rate = self.constant + ops.cast(global_step, ms.float32) * 0.0
        else:
            rate = self.decay(global_step)
        if self.warmup is not None:
            warming = ops.cast(global_step < self.warmup_steps, ms.float32)
            rate = warming * self.warmup(global_step) + (1.0 - warming) * rate
        return rate
