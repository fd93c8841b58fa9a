"""Takes the samples of health from a model in training: norms of its parameters, and a forward pass that looks inside.

Nothing here touches the training graph: a step with a sample computes what one without computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from pangu_alpha.model.block import Block
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.model.top_cell import TopCell
from pangu_alpha.train.health import HealthSample, measure_parameters

_TINY = 1e-30  # keeps log finite where a weight is zero; weight * log(weight) is zero there as it should be


class Probe(TopCell):
    """A forward pass without dropout that gives back, instead of logits, what the layers look like.

    Layers with an output: embedding, blocks, final norm and query layer as a token passes them; layers with attention:
    blocks and query layer.
    """

    def __init__(self, model: PanguAlphaModel) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.log, self.stack, self.square, self.sqrt, self.cast = (
            ops.Log(),
            ops.Stack(),
            ops.Square(),
            ops.Sqrt(),
            ops.Cast(),
        )
        blocks = [f"blocks.{layer}" for layer in range(len(model.blocks))]
        last = ["final_norm"]
        if model.has_query_layer:
            last = ["final_norm", "query_layer"] if model.norm_before_query else ["query_layer", "final_norm"]
        self.output_layers = ["embedding", *blocks, *last]
        self.attention_layers = blocks + (["query_layer"] if model.has_query_layer else [])

    def strength(self, hidden: Tensor) -> Tensor:
        """[B*S, H] -> its root mean square and its largest magnitude, float32 [2]."""
        hidden = self.cast(hidden, ms.float32)
        return self.stack((self.sqrt(self.square(hidden).mean()), hidden.abs().max()))

    def entropy(self, block: Block, hidden: Tensor, mask: Tensor, query_input: Tensor = None) -> Tensor:
        """Normalised entropy of each head of a block, float32 [N]; the compiler shares the products with the block's
        own, as they are the same.
        """
        attention = block.attention
        batch = mask.shape[0]
        normed = block.attention_norm(hidden)
        asking = normed if query_input is None else query_input
        query = attention.split_heads(attention.query(asking), batch)
        key = attention.split_heads(attention.key(normed), batch)
        weights = attention.weights(query, key, mask)  # [B, N, S, S]
        entropy = -(weights * self.log(weights + _TINY)).sum(axis=-1)  # [B, N, S]
        seen = self.cast(mask > -1.0, ms.float32).sum(axis=-1)  # [B, 1, S]
        several = self.cast(seen > 1.5, ms.float32)
        share = entropy / self.log(ops.maximum(seen, 2.0)) * several
        return share.sum(axis=(0, 2)) / ops.maximum(several.sum(), 1.0)

    def construct(
        self, tokens: Tensor, positions: Tensor, query_positions: Tensor, segments: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Four int32 [B, S] -> float32 [output layers, 2] (root mean square, largest magnitude) and float32
        [attention layers, N] (entropy).
        """
        model = self.model
        mask = model.masks[0](segments)
        hidden = model.embedding(tokens, positions, model.word_table)
        strengths, entropies = [self.strength(hidden)], []
        for block in model.blocks:
            entropies.append(self.entropy(block, hidden, mask))
            hidden = block(hidden, mask)
            strengths.append(self.strength(hidden))
        if not model.has_query_layer or model.norm_before_query:
            hidden = model.final_norm(hidden)
            strengths.append(self.strength(hidden))
        if model.has_query_layer:
            query_input = model.query_layer.query_input(query_positions)
            entropies.append(self.entropy(model.query_layer.block, hidden, mask, query_input))
            hidden = model.query_layer.block(hidden, mask, query_input)
            strengths.append(self.strength(hidden))
            if not model.norm_before_query:
                strengths.append(self.strength(model.final_norm(hidden)))
        return self.stack(strengths), self.stack(entropies)


class HealthMeter:
    """Makes a sample of one step: call `before` and `after` around it.

    `before` copies the weights to the host, so a step with a sample needs room for them there.

    Args:
        model: the model, for the forward pass.
        weights: its trainable parameters in the order of the gradient norms.
        optimizer: whose `moments1` and `moments2` stand in the same order; SGD has none.
        samples: samples of the batch that the forward pass looks at.
    """

    def __init__(
        self, model: PanguAlphaModel, weights: Sequence[Parameter], optimizer: nn.Cell, samples: int = 2
    ) -> None:
        self.probe = Probe(model)
        self.weights, self.samples = list(weights), samples
        self.adam_m, self.adam_v = (
            {weight.name: moment for weight, moment in zip(weights, moments, strict=True)} if moments else {}
            for moments in (getattr(optimizer, name, None) for name in ("moments1", "moments2"))
        )
        self._before: dict[str, NDArray[Any]] = {}

    def before(self) -> None:
        """Keep the weights as they are before the step."""
        self._before = {weight.name: np.array(weight.asnumpy()) for weight in self.weights}

    def after(
        self,
        step: int,
        gradient_norms: NDArray[np.float32],
        batch: tuple[NDArray[Any], ...],
        learning_rate_share: float = 1.0,
    ) -> HealthSample:
        """The sample of a finished step.

        Args:
            step: its number.
            gradient_norms: one a weight.
            batch: tokens, positions, query positions, segments, ..., each [B, S].
            learning_rate_share: its learning rate over the highest of the schedule.
        """
        names = [weight.name for weight in self.weights]
        sample = measure_parameters(
            step,
            gradient_norms=dict(zip(names, gradient_norms.tolist(), strict=True)),
            weights={weight.name: weight.asnumpy() for weight in self.weights},
            weights_before=self._before,
            adam_m={name: moment.asnumpy() for name, moment in self.adam_m.items()},
            adam_v={name: moment.asnumpy() for name, moment in self.adam_v.items()},
            learning_rate_share=learning_rate_share,
        )
        self._before = {}
        strengths, entropies = self.probe(*(Tensor(array[: self.samples]) for array in batch[:4]))
        strength, entropy = strengths.asnumpy().tolist(), entropies.asnumpy().tolist()
        outputs = self.probe.output_layers
        return replace(
            sample,
            activation_rms={layer: row[0] for layer, row in zip(outputs, strength, strict=True)},
            activation_max={layer: row[1] for layer, row in zip(outputs, strength, strict=True)},
            attention_entropy=dict(zip(self.probe.attention_layers, entropy, strict=True)),
        )
