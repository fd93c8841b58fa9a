"""Random order of entry through the whole model: what a step may know, and that the identity is the released model."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config import DataConfig
from pangu_alpha.data.order import Batch, arrange, arrange_samples, entry_order
from tests.reference.small_model import (
    END_OF_TEXT,
    SEQ_LENGTH,
    VOCABULARY,
    noisy_model,
    small_model_config,
    some_ids,
    tensors,
)

SAMPLES = 4


@pytest.fixture(scope="module")
def logits():
    """Batch -> logits float32 [B, S, V] of one small model."""
    model = noisy_model(small_model_config(num_layers=3))

    def compute(batch: Batch) -> np.ndarray:
        return model(*tensors(batch[:4])).asnumpy().reshape(SAMPLES, SEQ_LENGTH, VOCABULARY)

    return compute


def permuted(ids: np.ndarray) -> Batch:
    data = DataConfig(order="permuted", span_length=6)
    return arrange_samples(ids, np.zeros(SAMPLES), np.arange(SAMPLES), seed=1, data=data)


def test_a_step_knows_what_came_before_it_in_the_order_and_nothing_that_comes_later(logits):
    ids = some_ids(SAMPLES)
    orders = np.stack([entry_order(row, 1, 0, sample, "permuted", 1.0, 6) for sample, row in enumerate(ids)])
    assert (orders != np.arange(SEQ_LENGTH + 1)).any(-1).all()
    assert (np.diff(orders[0, :SEQ_LENGTH]) < 0).any()
    before = permuted(ids)
    kept = logits(before)
    changed_somewhere = 0
    for step in range(SEQ_LENGTH):  # the token that enters at this step becomes another one, in every sample
        other = ids.copy()
        rows, places = np.arange(SAMPLES), orders[:, step]
        is_text = ids[rows, places] != END_OF_TEXT
        other[rows, places] = np.where(is_text, 10 + (ids[rows, places] - 9) % (VOCABULARY - 10), END_OF_TEXT)
        batch = permuted(other)
        assert (batch.tokens[:, step] != before.tokens[:, step]).tolist() == is_text.tolist()
        assert all(np.array_equal(batch[array], before[array]) for array in (1, 2, 3))
        found = logits(batch)
        same = (found == kept).all(-1)  # [B, S], bit for bit
        for sample in np.flatnonzero(is_text):
            later = np.arange(SEQ_LENGTH) >= step
            own_document = before.segments[sample] == before.segments[sample, step]
            assert same[sample].tolist() == (~(later & own_document)).tolist(), (step, sample)
            changed_somewhere += int((~same[sample]).sum())
    assert changed_somewhere > 300


def test_the_label_is_never_an_input(logits):
    ids = some_ids(SAMPLES)
    other = ids.copy()
    other[:, -1] = 10 + (ids[:, -1] - 9) % (VOCABULARY - 10)  # only asked for
    one, two = permuted(ids), permuted(other)
    assert (one.labels[:, -1] != two.labels[:, -1]).all()
    assert np.array_equal(logits(one), logits(two))


def released_arrays(ids: np.ndarray) -> Batch:
    """The released model's input with `eod_reset`, written out: positions restart behind every end token, and the
    query layer is asked with the same positions.
    """
    positions, segments = np.zeros((2, len(ids), SEQ_LENGTH), np.int32)
    for sample, row in enumerate(ids):
        position = document = 0
        for index in range(SEQ_LENGTH):
            positions[sample, index], segments[sample, index] = position, document
            position += 1
            if row[index] == END_OF_TEXT:
                position, document = 0, document + 1
    return Batch(ids[:, :-1], positions, positions, segments, ids[:, 1:])


def test_the_identity_is_the_sequential_model_bit_for_bit(logits):
    ids = some_ids(SAMPLES)
    expected = released_arrays(ids)
    identity = np.broadcast_to(np.arange(SEQ_LENGTH + 1), ids.shape)
    ways = {
        "identity": arrange(ids, identity, reset_positions=True, reset_attention=True),
        "sequential": arrange_samples(ids, np.zeros(4), np.arange(4), 1, DataConfig(order="sequential")),
        "mixed, share 0": arrange_samples(ids, np.zeros(4), np.arange(4), 1,
                                          DataConfig(order="mixed", permuted_share=0.0)),
    }  # fmt: skip
    sequential = logits(expected)
    for name, batch in ways.items():
        for field, array, wanted in zip(Batch._fields, batch, expected, strict=True):
            assert array.dtype == np.int32
            assert np.array_equal(array, wanted), (name, field)
        assert np.array_equal(logits(batch), sequential), name
    assert not np.array_equal(logits(permuted(ids)), sequential)


def test_a_step_is_told_which_position_to_predict(logits):
    # The same tokens in view, another position asked for: another answer at that step, and only there.
    batch = permuted(some_ids(SAMPLES))
    asked = batch.query_positions.copy()
    asked[:, 7] = (asked[:, 7] + 1) % SEQ_LENGTH
    changed = (logits(batch) != logits(batch._replace(query_positions=asked))).any(-1)
    assert changed[:, 7].all()
    assert not np.delete(changed, 7, axis=1).any()
