"""Decoding with a key/value cache, and without one: the same answers, one token at a time.

Tokens take slots in the order in which they enter, whatever their positions, so random token order needs no other
cache.  A step sees the slots up to its own.  Everything is computed by the model's own cells.
"""

# B = batch, T = tokens of one call, C = capacity in slots, H = hidden, N = heads, D = head size, V = vocabulary.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from pangu_alpha.config import ModelConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.model.block import Block
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.model.top_cell import TopCell
from pangu_alpha.parallel.context import interruptible

_CALL_SIZES = (1, 4, 16, 64, 256, 1024)
"""Numbers of tokens that one call may feed; each is compiled when it is first needed."""


class Decoder(Protocol):
    """Text so far, token by token, and what the model says comes at the position asked for."""

    capacity: int
    """Most tokens that can be fed."""

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        ...

    def feed(self, tokens: Sequence[int], positions: Sequence[int], query_position: int) -> np.ndarray:
        """Feed one or more tokens, each with its own position, and ask once they have all entered.

        `query_position` is that of the wanted token minus one (the published convention); plain GPT ignores it.
        Gives the logits, float32 [V].
        """
        ...

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens fed."""
        ...


def run_graph(cell: nn.Cell, arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays in, the cell's result out; Ctrl-C raises KeyboardInterrupt when the graph has ended.

    Raises:
        PanguError: some of the result is NaN or infinite, as a diverged model's logits are.
    """
    with interruptible():
        result: np.ndarray = cell(*(Tensor(array) for array in arrays)).asnumpy()
    if not np.isfinite(result).all():
        raise PanguError(
            "the model's logits are not numbers (NaN or infinite): the checkpoint's weights are probably from a run "
            "that diverged; take one of its earlier checkpoints, or train with a smaller optimizer.learning_rate"
        )
    return result


class LayerCache(nn.Cell):
    """Keys and values of one layer's attention by slot: two [B, N, C, D] in the compute type."""

    def __init__(self, batch: int, config: ModelConfig, numerics: Numerics) -> None:
        super().__init__()
        shape = (batch, config.num_heads, config.seq_length, config.head_size)
        self.keys = Parameter(ops.zeros(shape, numerics.compute_dtype), name="keys", requires_grad=False)
        self.values = Parameter(ops.zeros(shape, numerics.compute_dtype), name="values", requires_grad=False)
        self.write_keys, self.write_values = ops.ScatterNdUpdate(), ops.ScatterNdUpdate()

    def construct(self, keys: Tensor, values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """New keys and values [B, N, T, D], their places int32 [B, N, T, 3] -> all keys and values [B, N, C, D]."""
        return self.write_keys(self.keys, places, keys), self.write_values(self.values, places, values)


class CachedStep(TopCell):
    """Feeds T new tokens to each of B texts and asks for one position each; keys and values stay in the caches."""

    def __init__(self, model: PanguAlphaModel, config: ModelConfig, numerics: Numerics, batch: int) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.caches = nn.CellList([LayerCache(batch, config, numerics) for _ in range(config.num_blocks)])
        if config.query_layer:
            self.query_cache = LayerCache(batch, config, numerics)
        self.slots = Tensor(np.arange(config.seq_length, dtype=np.int32).reshape(1, 1, 1, -1))
        self.gather, self.cast, self.expand = ops.Gather(), ops.Cast(), ops.ExpandDims()
        self.greater, self.scale = ops.Greater(), ops.Mul()
        self.heads, self.capacity = config.num_heads, config.seq_length

    def mask(self, slots: Tensor) -> Tensor:
        """Own slots int32 [B, T] -> additive float32 [B, 1, T, C]: 0 up to the own slot, -10000 after it."""
        own = self.expand(self.expand(slots, 1), 3)
        return self.scale(self.cast(self.greater(self.slots, own), ms.float32), -10000.0)

    def layer(self, block: Block, cache: LayerCache, hidden: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """One ordinary block over new tokens: hidden [B*T, H] -> [B*T, H]."""
        batch = mask.shape[0]
        attention = block.attention
        normed = block.attention_norm(hidden)
        new_keys = attention.split_heads(attention.key(normed), batch)
        new_values = attention.split_heads(attention.value(normed), batch)
        keys, values = cache(new_keys, new_values, places)
        query = attention.split_heads(attention.query(normed), batch)
        return block.add_attended(hidden, attention.attend(query, keys, values, mask))

    def ask(self, hidden: Tensor, rows: Tensor, query_positions: Tensor, places: Tensor, slots: Tensor) -> Tensor:
        """The query layer: every new token enters its cache, but only `rows` ask.  [B*T, H] -> [B, H]."""
        batch = slots.shape[0]
        layer = self.model.query_layer
        block, attention = layer.block, layer.block.attention
        normed = block.attention_norm(hidden)
        new_keys = attention.split_heads(attention.key(normed), batch)
        new_values = attention.split_heads(attention.value(normed), batch)
        keys, values = self.query_cache(new_keys, new_values, places)
        query = attention.split_heads(attention.query(layer.query_input(query_positions)), batch)  # [B, N, 1, D]
        mask = self.mask(self.gather(slots.reshape(-1), rows, 0).reshape(batch, 1))
        return block.add_attended(self.gather(hidden, rows, 0), attention.attend(query, keys, values, mask))

    def construct(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, places: Tensor, rows: Tensor, query_positions: Tensor
    ) -> Tensor:
        """One call.

        Args:
            tokens: int32 [B, T].
            positions: int32 [B, T], each token's own.
            slots: int32 [B, T], where their keys and values go.
            places: int32 [B, N, T, 3], the same as (batch, head, slot).
            rows: int32 [B], which of the B*T tokens ask.
            query_positions: int32 [B, 1], what they ask for.

        Returns:
            Logits [B, V] in the compute type.
        """
        model = self.model
        mask = self.mask(slots)
        hidden = model.embedding(tokens, positions, model.word_table)
        for block, cache in zip(model.blocks, self.caches):  # noqa: B905 (the graph compiler knows no strict=)
            hidden = self.layer(block, cache, hidden, places, mask)
        if not model.has_query_layer:
            hidden = model.final_norm(self.gather(hidden, rows, 0))
        elif model.norm_before_query:
            hidden = self.ask(model.final_norm(hidden), rows, query_positions, places, slots)
        else:
            hidden = model.final_norm(self.ask(hidden, rows, query_positions, places, slots))
        return model.head(hidden, model.word_table)


class CachedDecoder:
    """One text with a key/value cache: a call costs as much as the tokens that it feeds."""

    def __init__(self, model: PanguAlphaModel, config: ModelConfig, numerics: Numerics) -> None:
        self.capacity, self.length = config.seq_length, 0
        self._heads = config.num_heads
        self._step = CachedStep(model, config, numerics, batch=1)
        self._step.set_train(False)
        self._sizes = sorted({size for size in _CALL_SIZES if size < self.capacity} | {self.capacity})

    def feed(self, tokens: Sequence[int], positions: Sequence[int], query_position: int) -> np.ndarray:
        """See `Decoder.feed`."""
        _check_room(self, tokens, positions)
        logits = None
        start = 0
        while start < len(tokens):
            # The smallest call that holds all the rest and whose padding stays within the cache, else the largest
            # that the rest fills.  Padding takes slots that no real token has reached and that none sees.
            rest = len(tokens) - start
            fitting = [size for size in self._sizes if rest <= size <= self.capacity - self.length]
            size = fitting[0] if fitting else max(size for size in self._sizes if size <= rest)
            count = min(size, rest)
            logits = self._call(tokens[start : start + count], positions[start : start + count], size, query_position)
            self.length += count
            start += count
        assert logits is not None  # _check_room refuses empty input
        return logits

    def _call(self, tokens: Sequence[int], positions: Sequence[int], size: int, query_position: int) -> np.ndarray:
        padded = np.zeros((2, 1, size), np.int32)
        padded[0, 0, : len(tokens)], padded[1, 0, : len(tokens)] = tokens, positions
        slots = np.arange(self.length, self.length + size, dtype=np.int32)[None]
        places = np.zeros((1, self._heads, size, 3), np.int32)
        places[0, :, :, 1] = np.arange(self._heads, dtype=np.int32)[:, None]
        places[..., 2] = slots
        rows = np.array([len(tokens) - 1], np.int32)
        asked = np.array([[query_position]], np.int32)
        logits = run_graph(self._step, (padded[0], padded[1], slots, places, rows, asked))
        return logits[0].astype(np.float32)

    def rewind(self, length: int) -> None:
        """See `Decoder.rewind`; the slots stay as they are and are written over."""
        _check_rewind(self, length)
        self.length = length


class FullDecoder:
    """One text without a cache: every call runs the whole model over all tokens so far.  Slow, and the yardstick."""

    def __init__(self, model: PanguAlphaModel, config: ModelConfig) -> None:
        self.capacity = config.seq_length
        self._model = model
        model.set_train(False)
        self._tokens: list[int] = []
        self._positions: list[int] = []

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        return len(self._tokens)

    def feed(self, tokens: Sequence[int], positions: Sequence[int], query_position: int) -> np.ndarray:
        """See `Decoder.feed`."""
        _check_room(self, tokens, positions)
        self._tokens.extend(tokens)
        self._positions.extend(positions)
        arrays = np.zeros((4, 1, self.capacity), np.int32)  # tokens, positions, query positions, segments
        arrays[0, 0, : self.length], arrays[1, 0, : self.length] = self._tokens, self._positions
        arrays[2, 0, self.length - 1] = query_position
        logits = run_graph(self._model, arrays)
        return logits[self.length - 1].astype(np.float32)

    def rewind(self, length: int) -> None:
        """See `Decoder.rewind`."""
        _check_rewind(self, length)
        del self._tokens[length:], self._positions[length:]


def _check_room(decoder: CachedDecoder | FullDecoder, tokens: Sequence[int], positions: Sequence[int]) -> None:
    if not tokens or len(tokens) != len(positions):
        raise ValueError(
            f"{len(tokens)} tokens with {len(positions)} positions: give one position a token, at least one"
        )
    if decoder.length + len(tokens) > decoder.capacity:
        raise ValueError(f"{decoder.length} + {len(tokens)} tokens exceed the capacity of {decoder.capacity}")


def _check_rewind(decoder: CachedDecoder | FullDecoder, length: int) -> None:
    if not 0 <= length <= decoder.length:
        raise ValueError(f"cannot go back to {length} tokens: {decoder.length} were fed")
