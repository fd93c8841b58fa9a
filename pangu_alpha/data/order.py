"""The order in which the tokens of a sample enter the model: sequential, permuted within spans, or a mixture.

The query layer is told which position to predict, so the tokens may come in any order.  A sample is S + 1 ids
(S = `model.seq_length`).  Its order of entry π says that the token at index π(n) enters at step n:

    tokens[n]          = ids[π(n)]
    positions[n]       = local(π(n))
    query_positions[n] = local(π(n + 1)) - 1
    segments[n]        = document of ids[π(n)] within the sample: 0, 1, 2 …
    labels[n]          = ids[π(n + 1)]

for n = 0 … S - 1, where local(i) counts from the first token of i's document (`data.reset_positions`), or is i.
The published query index p asks for the token at p + 1, hence the -1; so π(n) = n gives the arrays of the released
model bit for bit (its `eod_reset`) and its weights keep their meaning.

- A document reaches from its first token a to its end token b (`<eot>`, which belongs to it).  a enters first and b
  last; the tokens between are cut into spans of `span_length`, spans enter one after the other, and the tokens of one
  span in random order.
- The step at b asks for the first token of the next document.  As published it is counted, and its query position is
  its own position (never -1).
- The sample's last token, index S, is only asked for: π(S) = S.
- A padded tail (`<pad>`) is a document of its own, enters in sequence, and is masked by the loss (tokens = `<pad>`).

Randomness comes from (seed, epoch, sample index) alone, through numpy's SeedSequence and Philox, whose raw output is
the same on every platform and in every numpy version: any sample of any epoch can be made again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pangu_alpha.config import DataConfig
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD

Integers = npt.NDArray[np.integer[Any]]

_ORDER_STREAM = 0x6F72646572  # keeps these draws apart from any others made of the same seed and epoch


class Batch(NamedTuple):
    """What the model is fed for some samples; every array is int32 of shape [..., S]."""

    tokens: Integers
    positions: Integers
    query_positions: Integers
    segments: Integers
    labels: Integers


class Documents(NamedTuple):
    """Where the documents of a sample lie; every array has the shape of the ids."""

    number: Integers
    """Number of the document within the sample, int32."""
    start: Integers
    """Index of the document's first token, int32."""


def find_documents(ids: Integers) -> Documents:
    """Documents of samples.

    A document begins at index 0, after every end token, and where padding begins.

    Args:
        ids: [..., S + 1].
    """
    starts = np.zeros(ids.shape, bool)
    starts[..., 0] = True
    before, here = ids[..., :-1], ids[..., 1:]
    starts[..., 1:] = (before == END_OF_TEXT) | ((here == PAD) & (before != PAD))
    places = np.arange(ids.shape[-1], dtype=np.int32)
    start = np.maximum.accumulate(np.where(starts, places, 0), axis=-1)
    return Documents(np.cumsum(starts, axis=-1, dtype=np.int32) - 1, start.astype(np.int32))


def entry_groups(ids: Integers, span_length: int) -> Integers:
    """Number of the group that each token enters with: groups enter in turn, tokens of one group in any order.

    The first and the last token of a document, and every padding token, are groups of their own; the tokens between
    form groups of `span_length`, counted from the second token of the document.

    Args:
        ids: [..., S + 1].
        span_length: tokens of one span.

    Returns:
        int64 [..., S + 1], never falling along the last axis.
    """
    length = ids.shape[-1]
    start = find_documents(ids).start
    place = np.arange(length, dtype=np.int32) - start
    last = np.ones(ids.shape, bool)
    last[..., :-1] = start[..., 1:] != start[..., :-1]
    first_of_span = (place - 1) % span_length == 0
    after_last = np.zeros(ids.shape, bool)
    after_last[..., 1:] = last[..., :-1]
    new_group = (place == 0) | first_of_span | last | after_last | (ids == PAD)
    return np.cumsum(new_group, axis=-1)


def entry_order(
    ids: Integers, seed: int, epoch: int, sample_index: int, order: str, permuted_share: float, span_length: int
) -> Integers:
    """Order of entry of one sample.

    Args:
        ids: [S + 1], the sample.
        seed: of the run.
        epoch: how often the data was seen before.
        sample_index: of the sample among all training samples.
        order: sequential, permuted or mixed.
        permuted_share: with mixed, probability that this sample is permuted (drawn from the same key).
        span_length: tokens of one span.

    Returns:
        π, int64 [S + 1]: the token at index π[n] enters at step n; π[S] = S.
    """
    length = ids.shape[-1]
    if order == "sequential":
        return np.arange(length)
    key = np.random.SeedSequence((_ORDER_STREAM, seed, epoch, sample_index))
    draws = np.random.Philox(key).random_raw(length + 1)
    if order == "mixed" and not draws[0] < permuted_share * 2.0**64:
        return np.arange(length)
    # One sort does it all: the group in the high bits, 40 random bits below; equal keys keep their order.
    keys = (entry_groups(ids, span_length).astype(np.uint64) << np.uint64(40)) | (draws[1:] >> np.uint64(24))
    return np.argsort(keys, kind="stable")


def arrange(ids: Integers, order: Integers, reset_positions: bool, reset_attention: bool) -> Batch:
    """Arrays that the model is fed, for samples and their orders of entry.

    Args:
        ids: [..., S + 1].
        order: π, of the same shape, with π(S) = S.
        reset_positions: positions restart at each document.
        reset_attention: documents get numbers of their own, so that the model blocks attention between them; else
            every segment is 0.
    """
    documents = find_documents(ids)
    places = np.broadcast_to(np.arange(ids.shape[-1], dtype=np.int32), ids.shape)
    local = places - documents.start if reset_positions else places
    here, asked = order[..., :-1], order[..., 1:]
    positions = np.take_along_axis(local, here, axis=-1)
    query_positions = np.take_along_axis(local, asked, axis=-1) - 1
    # A document's first token is asked for by the end of the one before, from that end's own position.
    asked_is_first = np.take_along_axis(documents.start, asked, axis=-1) == asked
    query_positions = np.where(asked_is_first, positions, query_positions)
    segments = np.take_along_axis(documents.number, here, axis=-1) if reset_attention else np.zeros_like(here)
    arrays = (
        np.take_along_axis(ids, here, axis=-1),
        positions,
        query_positions,
        segments,
        np.take_along_axis(ids, asked, axis=-1),
    )
    return Batch(*(np.ascontiguousarray(array, dtype=np.int32) for array in arrays))


def arrange_samples(
    ids: Integers,
    epochs: Sequence[int] | Integers,
    sample_indices: Sequence[int] | Integers,
    seed: int,
    data: DataConfig,
) -> Batch:
    """Arrays of a training batch: each sample in the order that its (seed, epoch, index) draws.

    Args:
        ids: [B, S + 1].
        epochs: of each sample, [B].
        sample_indices: of each sample among all training samples, [B].
        seed: of the run.
        data: order, permuted_share, span_length, reset_positions, reset_attention.
    """
    orders = np.stack(
        [
            entry_order(sample, seed, int(epoch), int(index), data.order, data.permuted_share, data.span_length)
            for sample, epoch, index in zip(ids, epochs, sample_indices, strict=True)
        ]
    )
    return arrange(ids, orders, data.reset_positions, data.reset_attention)


def arrange_sequentially(ids: Integers, reset_positions: bool, reset_attention: bool) -> Batch:
    """Arrays of samples [..., S + 1] that enter from left to right."""
    order = np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)
    return arrange(ids, order, reset_positions, reset_attention)
