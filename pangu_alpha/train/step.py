"""One optimizer step as compiled cells: gradients, loss scale, clipping, and an update that bad gradients skip."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.config import Config
from pangu_alpha.model.dropout import DropoutKey
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss
from pangu_alpha.train.optimizer import build_optimizer

METRICS = ("loss", "gradient_norm", "learning_rate", "loss_scale", "applied")
"""What the first result of `TrainStep` holds, in this order."""

_scale_gradient = ops.MultitypeFuncGraph("scale_gradient")
_square_sum = ops.MultitypeFuncGraph("square_sum")
_accumulate = ops.MultitypeFuncGraph("accumulate")
_add_accumulated = ops.MultitypeFuncGraph("add_accumulated")
_clear = ops.MultitypeFuncGraph("clear")


@_scale_gradient.register("Tensor", "Tensor")
def _scale_gradient_of(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factor


@_square_sum.register("Tensor")
def _square_sum_of(gradient: Tensor) -> Tensor:
    # Not L2Loss: on the CPU it adds one by one in float32, and of 40 million elements it loses a tenth.
    # And rows first: there a sum over the last axis takes a third of the time of one over all axes.
    squares = ops.square(gradient)
    if len(gradient.shape) > 1:
        squares = squares.sum(-1)
    return ops.reshape(squares.sum(), (1,))


@_accumulate.register("Tensor", "Tensor")
def _accumulate_in(accumulated: Parameter, gradient: Tensor) -> Tensor:
    return ops.assign_add(accumulated, gradient)


@_add_accumulated.register("Tensor", "Tensor")
def _add_accumulated_to(accumulated: Parameter, gradient: Tensor) -> Tensor:
    return gradient + accumulated


@_clear.register("Tensor")
def _clear_of(accumulated: Parameter) -> Tensor:
    return ops.assign(accumulated, ops.zeros_like(accumulated))


class Gradients(nn.Cell):
    """Loss and gradients of one micro batch, scaled by loss scale / micro batches.

    Counts micro steps, so that dropout masks are a function of (seed, step, micro batch).
    """

    def __init__(self, network: PanguAlphaLoss, weights: ParameterTuple, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.has_dropout = config.model.dropout > 0.0
        self.dropout_key = DropoutKey(config.train.seed)
        self.micro_step = Parameter(Tensor(0, ms.int32), name="micro_step", requires_grad=False)
        self.micro_batches = float(config.train.micro_batches)
        self.value_and_grad = ops.value_and_grad(self.scaled_loss, None, weights, has_aux=True)

    def scaled_loss(self, inputs: tuple[Tensor, ...], scale: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled loss, to be differentiated, and the plain one."""
        tokens, positions, query_positions, segments, labels = inputs
        key = None
        if self.has_dropout:
            key = self.dropout_key(self.micro_step)
        loss = self.network(tokens, positions, query_positions, segments, labels, key)
        return loss * scale, loss

    def construct(self, inputs: tuple[Tensor, ...], loss_scale: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Five int32 [B, S] and the loss scale -> loss / micro batches, scaled gradients."""
        (_, loss), gradients = self.value_and_grad(inputs, loss_scale / self.micro_batches)
        loss = ops.depend(loss, ops.assign_add(self.micro_step, Tensor(1, ms.int32)))
        return loss / self.micro_batches, gradients


class AccumulateStep(nn.Cell):
    """All micro batches of a step but the last: adds loss and gradients to their accumulators."""

    def __init__(self, step: TrainStep) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = step.gradients
        self.loss_scale = step.loss_scale
        self.accumulated = step.accumulated
        self.accumulated_loss = step.accumulated_loss
        self.map = ops.HyperMap()

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, labels: Tensor
    ) -> Tensor:
        """Five int32 [B, S] -> the loss accumulated so far, float32 []."""
        loss, gradients = self.gradients((tokens, positions, query_positions, segments, labels), self.loss_scale)
        total = ops.assign_add(self.accumulated_loss, loss)
        return ops.depend(total, self.map(_accumulate, self.accumulated, gradients))


class TrainStep(nn.Cell):
    """The last (or only) micro batch of a step and the update.

    Gradients are divided by the loss scale and scaled to a global norm of at most `optimizer.clip_norm`.  The update
    is skipped, and with it the optimizer's own step count, where the norm is not finite (an overflow: the loss scale
    then falls) or exceeds `norm_limit`.
    """

    def __init__(self, network: PanguAlphaLoss, config: Config, numerics: Numerics) -> None:
        super().__init__(auto_prefix=False)
        self.weights = ParameterTuple(network.trainable_params())
        self.optimizer = build_optimizer(list(self.weights), config.optimizer)
        self.gradients = Gradients(network, self.weights, config)
        self.dynamic_scale = numerics.compute_dtype == ms.float16
        initial = config.loss_scale.initial if self.dynamic_scale else 1.0
        self.loss_scale = Parameter(Tensor(initial, ms.float32), name="loss_scale", requires_grad=False)
        self.update_scale = nn.DynamicLossScaleUpdateCell(initial, config.loss_scale.factor, config.loss_scale.window)
        self.clip_norm = config.optimizer.clip_norm
        self.accumulates = config.train.micro_batches > 1
        if self.accumulates:
            self.accumulated = self.weights.clone(prefix="accumulated", init="zeros")
            self.accumulated_loss = Parameter(Tensor(0.0, ms.float32), name="accumulated_loss", requires_grad=False)
        self.norm_limit = Parameter(Tensor(np.inf, ms.float32), name="norm_limit", requires_grad=False)
        self.map = ops.HyperMap()
        self.concat = ops.Concat()
        self.is_finite = ops.IsFinite()
        self.stack = ops.Stack()

    def state_parameters(self) -> list[Parameter]:
        """Everything that a later step depends on: weights, moments, counters, loss scale.

        Not the accumulators, which are zero between steps, nor the limit, which the host sets.
        """
        skipped = {"norm_limit"}
        if self.accumulates:
            skipped |= {"accumulated_loss", *(p.name for p in self.accumulated)}
        seen: dict[str, Parameter] = {}
        for parameter in self.get_parameters():
            if parameter.name not in skipped and not parameter.name.startswith("learning_rate"):
                seen.setdefault(parameter.name, parameter)
        return list(seen.values())

    def construct(
        self,
        tokens: Tensor,
        positions: Tensor,
        query_positions: Tensor,
        segments: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Five int32 [B, S] -> (METRICS float32 [5], gradient norm of each weight float32 [P])."""
        scale = self.loss_scale + 0.0
        loss, gradients = self.gradients((tokens, positions, query_positions, segments, labels), scale)
        if self.accumulates:
            gradients = self.map(_add_accumulated, self.accumulated, gradients)
            loss = loss + self.accumulated_loss
        squares = self.concat(self.map(_square_sum, gradients))  # [P]
        norms = ops.sqrt(squares) / scale
        norm = ops.sqrt(ops.square(norms).sum())
        finite = self.is_finite(norm)
        applied = ops.logical_and(finite, norm <= self.norm_limit)
        factor = ops.reciprocal(scale)
        if self.clip_norm > 0.0:
            factor = factor * (self.clip_norm / ops.maximum(norm, self.clip_norm))
        rate = self.optimizer.learning_rate(self.optimizer.global_step).reshape(())
        if applied:
            updated = self.optimizer(self.map(ops.partial(_scale_gradient, factor), gradients))
            loss = ops.depend(loss, updated)
        if self.dynamic_scale:
            loss = ops.depend(loss, self.update_scale(self.loss_scale, ops.logical_not(finite)))
        if self.accumulates:
            loss = ops.depend(loss, self.map(_clear, ops.depend(self.accumulated, loss)))
            loss = ops.depend(loss, ops.assign(self.accumulated_loss, ops.depend(Tensor(0.0, ms.float32), loss)))
        return self.stack((loss, norm, rate, scale, ops.cast(applied, ms.float32))), norms


def read_metrics(metrics: Tensor) -> dict[str, float]:
    """The first result of `TrainStep` by name."""
    return dict(zip(METRICS, metrics.asnumpy().tolist(), strict=True))


class Stepper:
    """Runs whole optimizer steps from the host: cuts a batch into micro batches and calls the compiled cells."""

    def __init__(self, network: PanguAlphaLoss, config: Config, numerics: Numerics) -> None:
        self.micro_batches = config.train.micro_batches
        self.step = TrainStep(network, config, numerics)
        self.accumulate = AccumulateStep(self.step) if self.micro_batches > 1 else None

    def set_norm_limit(self, limit: float) -> None:
        """Batches whose gradient norm exceeds `limit` are skipped from now on."""
        self.step.norm_limit.set_data(Tensor(limit, ms.float32))

    def __call__(self, batch: Sequence[np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
        """Five int32 arrays [B, S] -> (METRICS by name, gradient norm of each weight float32 [P])."""
        parts = [np.split(array, self.micro_batches) for array in batch]
        if self.accumulate is not None:
            for micro_batch in range(self.micro_batches - 1):
                self.accumulate(*(Tensor(part[micro_batch]) for part in parts))
        metrics, norms = self.step(*(Tensor(part[-1]) for part in parts))
        return read_metrics(metrics), norms.asnumpy()
