from __future__ import annotations

import dataclasses

import numpy as np

from pangu_alpha.config_file import load_config
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD
from pangu_alpha.rehearsal.emulator.batches import batch_of_step


def test_batches(repository):
    config = load_config(repository / "configs" / "twins" / "all_five.yaml").config
    first, again, second = batch_of_step(config, 0), batch_of_step(config, 0), batch_of_step(config, 1)
    shape = (config.train.batch_size, config.model.seq_length)
    for one, other, later in zip(first, again, second, strict=True):
        assert one.shape == shape and one.dtype == np.int32
        np.testing.assert_array_equal(one, other)
        assert (one != later).any()
    assert (first.segments.max(axis=1) > 0).any(), "documents, for the mask"
    assert (first.positions != np.arange(shape[1])).any()
    assert (first.tokens == PAD).any() and (first.tokens == END_OF_TEXT).any()
    assert first.tokens.max() < config.model.vocab_size
    in_order = dataclasses.replace(config, data=dataclasses.replace(config.data, order="sequential"))
    assert (batch_of_step(in_order, 0).tokens != first.tokens).any(), "some samples enter permuted"
