"""One optimizer step as compiled cells: gradients, loss scale, clipping, and an update that bad gradients skip."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.config import Config
from pangu_alpha.model.numerics import Numerics, resolve_numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel, PipelinedPanguAlphaLoss
from pangu_alpha.model.sharding import UNSHARDED, Sharding
from pangu_alpha.model.top_cell import TopCell
from pangu_alpha.parallel.context import BATCH_ARRAYS
from pangu_alpha.parallel.data_parallel import DataParallel
from pangu_alpha.parallel.layout import Layout, layout_of, require_data_parallel_alone
from pangu_alpha.parallel.micro_batches import MicroBatches
from pangu_alpha.parallel.slices import gradient_shares, places_in_stage
from pangu_alpha.parallel.stages import lay_out, stages_of_parameter
from pangu_alpha.parallel.strategies import Strategies
from pangu_alpha.train.optimizer import build_optimizer

METRICS = ("loss", "gradient_norm", "learning_rate", "loss_scale", "applied")
"""What the first result of `TrainStep` holds, in this order."""

_scale_gradient = ops.MultitypeFuncGraph("scale_gradient")
_square_sum = ops.MultitypeFuncGraph("square_sum")
_accumulate = ops.MultitypeFuncGraph("accumulate")
_add_accumulated = ops.MultitypeFuncGraph("add_accumulated")
_clear = ops.MultitypeFuncGraph("clear")
_multiply_no_nan = ops.MulNoNan()


@_scale_gradient.register("Tensor", "Tensor")
def _scale_gradient_of(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factor


@_square_sum.register("Number", "Tensor")
def _square_sum_of(share: float, gradient: Tensor) -> Tensor:
    # Not L2Loss: on the CPU it adds one by one in float32, and of 40 million elements it loses a tenth.
    # And rows first: there a sum over the last axis takes a third of the time of one over all axes.
    squares = ops.square(gradient)
    if len(gradient.shape) > 1:
        squares = squares.sum(-1)
    total = squares.sum()
    return total if share == 1.0 else total * share  # known while the graph is compiled


@_accumulate.register("Tensor", "Tensor")
def _accumulate_in(accumulated: Parameter, gradient: Tensor) -> Tensor:
    return ops.assign_add(accumulated, gradient)


@_add_accumulated.register("Tensor", "Tensor")
def _add_accumulated_to(accumulated: Parameter, gradient: Tensor) -> Tensor:
    return gradient + accumulated


@_clear.register("Tensor")
def _clear_of(accumulated: Parameter) -> Tensor:
    # Not zeros_like, which becomes a constant as large as the model; and a product that makes 0 of inf and nan, too.
    return ops.assign(accumulated, _multiply_no_nan(accumulated, ops.zeros((1,), ms.float32)))


class CountedLoss(nn.Cell):
    """The loss with dropout masks of the micro step at hand, which is no input: those are all cut by rows."""

    def __init__(self, network: PanguAlphaLoss, micro_step: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.network, self.micro_step = network, micro_step
        self.add = network.model.sharding.shard(ops.Add(), "vector_scalar")
        self.zero = Tensor(0, ms.int32)

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, labels: Tensor
    ) -> Tensor:
        """Five int32 [B, S] -> float32 []."""
        return self.network(tokens, positions, query_positions, segments, labels, self.add(self.micro_step, self.zero))


class Gradients(nn.Cell):
    """Loss and gradients of one micro batch, or in a pipeline of all, scaled by loss scale / micro batches.

    Counts micro steps, so that dropout masks are a function of (seed, step, micro batch).
    """

    def __init__(self, network: PanguAlphaLoss, weights: ParameterTuple, config: Config, layout: Layout) -> None:
        super().__init__(auto_prefix=False)
        self.at_once = layout.micro_batches if layout.in_pipeline else 1
        self.weights = weights
        self.micro_step = Parameter(Tensor([0], ms.int32), name="micro_step", requires_grad=False)
        self.in_pipeline = layout.in_pipeline
        if layout.in_pipeline:
            self.network = MicroBatches(network, layout.micro_batches, config.train.batch_size, config.model.seq_length)
        else:
            self.network = CountedLoss(network, self.micro_step) if config.model.dropout > 0.0 else network
        self.number = Tensor(np.arange(self.at_once, dtype=np.int32))
        self.micro_batches = float(layout.micro_batches)
        self.gradient = ops.GradOperation(get_by_list=True, sens_param=True)

    def construct(self, inputs: tuple[Tensor, ...], loss_scale: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Five int32 [B, S] and the loss scale -> loss / micro batches, scaled gradients."""
        if self.in_pipeline:  # which gives each micro batch its own number
            inputs = (*inputs, self.micro_step + self.number)
        loss = self.network(*inputs)
        scale = ops.ones_like(loss) * (loss_scale / self.micro_batches)
        gradients = self.gradient(self.network, self.weights)(*inputs, scale)
        loss = ops.depend(loss, ops.assign_add(self.micro_step, Tensor([self.at_once], ms.int32)))
        return loss / self.micro_batches, gradients


class AccumulateStep(TopCell):
    """All micro batches of a step but the last: adds loss and gradients to their accumulators."""

    def __init__(self, step: TrainStep) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = step.gradients
        self.loss_scale = step.loss_scale
        self.accu_grads = step.accu_grads
        self.accumulated_loss = step.accumulated_loss
        self.map = ops.HyperMap()

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor, labels: Tensor
    ) -> Tensor:
        """Five int32 [B, S] -> the loss accumulated so far, float32 []."""
        loss, gradients = self.gradients((tokens, positions, query_positions, segments, labels), self.loss_scale)
        total = ops.assign_add(self.accumulated_loss, loss)
        return ops.depend(total, self.map(_accumulate, self.accu_grads, gradients))


class TrainStep(TopCell):
    """The last (or only) micro batch of a step and the update.

    Gradients are divided by the loss scale and scaled to a global norm of at most `optimizer.clip_norm`.  The update
    is skipped, and with it the optimizer's own step count, where the norm is not finite (an overflow: the loss scale
    then falls) or exceeds `norm_limit`.
    """

    def __init__(
        self, network: PanguAlphaLoss, config: Config, numerics: Numerics, layout: Layout | None = None, rank: int = 0
    ) -> None:
        super().__init__(auto_prefix=False)
        layout = layout or Layout(micro_batches=config.train.micro_batches)
        self.network, self.model = network, network.model
        stage, weights = layout.stage_of(rank), network.trainable_params()
        # Of a pipeline's layers MindSpore compiles all and then cuts the other stages' away; so a rank's optimizer has
        # only its own, and the others get no gradient.
        for weight in weights:
            weight.requires_grad = stage in stages_of_parameter(weight.name, config.model, layout)
        self.weights = ParameterTuple(weight for weight in weights if weight.requires_grad)
        self.optimizer = build_optimizer(list(self.weights), config.optimizer, numerics)
        self.gradients = Gradients(network, self.weights, config, layout)
        self.dynamic_scale = numerics.compute_dtype == ms.float16
        initial = config.loss_scale.initial if self.dynamic_scale else 1.0
        self.loss_scale = Parameter(Tensor(initial, ms.float32), name="loss_scale", requires_grad=False)
        self.update_scale = nn.DynamicLossScaleUpdateCell(initial, config.loss_scale.factor, config.loss_scale.window)
        self.clip_norm = config.optimizer.clip_norm
        self.accumulates = layout.micro_batches > 1
        self.pipelined, self.divided = layout.in_pipeline, layout.divides_optimizer
        if self.accumulates:
            # A pipeline adds its micro batches up by itself, and finds the sums by this name.
            self.accu_grads = self.weights.clone(prefix="accu_grads", init="zeros")
            self.accumulated_loss = Parameter(Tensor(0.0, ms.float32), name="accumulated_loss", requires_grad=False)
        self.norm_limit = Parameter(Tensor(np.inf, ms.float32), name="norm_limit", requires_grad=False)
        self.shares = gradient_shares([(weight.name, weight.shape) for weight in self.weights], layout, rank)
        self.places = Tensor(places_in_stage([weight.name for weight in weights], config.model, layout, rank))
        self.zero = Tensor(np.zeros(1, np.float32))
        self.gather = ops.Gather()
        self.has_ranks = layout.devices > 1
        self.sum_over_ranks = ops.AllReduce() if self.has_ranks else ops.Identity()
        self.sums_gradients = network.model.sharding.sum_over_data_parallel() is not None
        self.loss_copies = 1.0 if self.sums_gradients else float(layout.devices_per_stage)
        self.map = ops.HyperMap()
        self.concat, self.expand = ops.Concat(), ops.ExpandDims()
        self.is_finite = ops.IsFinite()
        self.stack = ops.Stack()

    def state_parameters(self) -> list[Parameter]:
        """Everything that a later step depends on: weights, moments, counters, loss scale.

        Not the accumulators, which are zero between steps, nor the limit, which the host sets.
        """
        skipped = {"norm_limit"}
        if self.accumulates:
            skipped |= {"accumulated_loss", *(p.name for p in self.accu_grads)}
        seen: dict[str, Parameter] = {}
        for parameter in self.get_parameters():
            if parameter.name not in skipped and not parameter.name.startswith("learning_rate"):
                seen.setdefault(parameter.name, parameter)
        return list(seen.values())

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of what a checkpoint of the run holds: `state_parameters`, and other stages' moments."""
        shapes = {item.name: tuple(item.shape) for item in self.state_parameters()}
        trained = self.weights[0].name
        prefixes = [name.removesuffix(trained) for name in shapes if name.endswith(f".{trained}")]
        for weight in self.network.get_parameters():
            shapes |= {prefix + weight.name: tuple(weight.shape) for prefix in prefixes}
        return shapes

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
        # () elsewhere: MindSpore warns of a second name for gradients that nothing uses ("side effect nodes …").
        accumulated = ops.depend(self.accu_grads, gradients) if self.pipelined else ()
        if self.pipelined:
            if not self.divided:  # divided gradients come back added up, whole ones stay in accu_grads
                gradients = accumulated
        elif self.accumulates:
            gradients = self.map(_add_accumulated, self.accu_grads, gradients)
            loss = loss + self.accumulated_loss
        if self.sums_gradients:
            gradients = self.map(self.sum_over_ranks, gradients)
        squares = self.stack(self.map(_square_sum, self.shares, gradients))  # [P]
        if self.has_ranks:
            squares, loss = self.over_ranks(squares, loss)
        norms = ops.sqrt(squares) / scale
        norm = ops.sqrt(ops.square(norms).sum())
        finite = self.is_finite(norm)
        applied = ops.logical_and(finite, norm <= self.norm_limit)
        factor = ops.reciprocal(scale)
        if self.clip_norm > 0.0:
            factor = factor * (self.clip_norm / ops.maximum(norm, self.clip_norm))
        rate = self.optimizer.learning_rate(self.optimizer.global_step).reshape(())
        # Scaled out here: inside the condition MindSpore would count the gradients of all pipeline stages.
        scaled = self.map(ops.partial(_scale_gradient, factor), gradients)
        if applied:
            loss = ops.depend(loss, self.optimizer(scaled))
        if self.dynamic_scale:
            loss = ops.depend(loss, self.update_scale(self.loss_scale, ops.logical_not(finite)))
        if self.pipelined:
            loss = ops.depend(loss, self.map(_clear, ops.depend(accumulated, loss)))
        elif self.accumulates:
            loss = ops.depend(loss, self.map(_clear, ops.depend(self.accu_grads, loss)))
            loss = ops.depend(loss, ops.assign(self.accumulated_loss, ops.depend(Tensor(0.0, ms.float32), loss)))
        return self.stack((loss, norm, rate, scale, ops.cast(applied, ms.float32))), norms

    def over_ranks(self, squares: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Square sums of this stage's weights and the loss [] -> those of the model [P] and [], on every rank.

        MindSpore adds no sum of its own to a norm that is written out.  What is not finite on one rank is so on all
        afterwards, so that all skip the same update.  Ranks of other stages than the last have the loss 0.
        """
        # No reshape to a constant shape here: MindSpore takes it for one of the backward pass and changes the shape.
        if self.pipelined:  # here MindSpore has left out the weights of other stages
            squares = self.gather(self.concat((squares, self.zero)), self.places, 0)
        total = self.sum_over_ranks(self.concat((squares, self.expand(loss / self.loss_copies, 0))))
        return total[:-1], total[-1]


def read_metrics(metrics: Tensor) -> dict[str, float]:
    """The first result of `TrainStep` by name."""
    return dict(zip(METRICS, metrics.asnumpy().tolist(), strict=True))


class Stepper:
    """Runs whole optimizer steps from the host: cuts a batch into micro batches and calls the compiled cells."""

    def __init__(self, step: TrainStep) -> None:
        self.step = step
        cut_here = step.accumulates and not step.pipelined
        self.micro_batches = int(step.gradients.micro_batches) if cut_here else 1
        self.accumulate = AccumulateStep(step).set_train() if cut_here else None

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


def build_training_step(config: Config, device: str, rank: int = 0) -> TrainStep:
    """The training step of a run, as one rank computes it: model, layout, gradients, optimizer.

    Args:
        config: the run.
        device: cpu, gpu or ascend.
        rank: whose step, of `layout_of(config).devices`.

    Raises:
        InvalidValue: the layout does not fit the model, or the device.
    """
    layout = layout_of(config)
    numerics = resolve_numerics(config.model, device)
    sharding: Sharding = UNSHARDED
    if layout.devices > 1 and device == "cpu":
        require_data_parallel_alone(layout)
        sharding = DataParallel(layout, rank)
    elif layout.devices > 1:
        products_only = config.parallel.search != "none"
        sharding = Strategies(layout, config.model, rank, config.train.seed, products_only)
    model = PanguAlphaModel(config.model, numerics, sharding, config.train.seed)
    network_type = PipelinedPanguAlphaLoss if layout.in_pipeline else PanguAlphaLoss
    network = network_type(model, config.model.vocab_size)
    if sharding.active or layout.recompute != "none":
        lay_out(network, layout)
    step = TrainStep(network, config, numerics, layout, rank)
    step.set_train()  # MindSpore lays a graph out in pipeline stages as for training only if it is for training
    return step


def training_inputs(config: Config) -> tuple[Tensor, ...]:
    """What the step is called with: in a pipeline the whole batch, which it cuts into micro batches itself, otherwise a
    rank's rows of one micro batch; see `batch_inputs`.
    """
    layout = layout_of(config)
    return batch_inputs(
        config, config.train.batch_size // (1 if layout.in_pipeline else layout.micro_batches * layout.row_parts)
    )


def batch_inputs(config: Config, rows: int) -> tuple[Tensor, ...]:
    """Tokens, positions, query positions, segments, labels, int32 [rows, S] each, as shapes without data."""
    return tuple(Tensor(shape=(rows, config.model.seq_length), dtype=ms.int32) for _ in range(BATCH_ARRAYS))
