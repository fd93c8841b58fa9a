"""Held-out scores against NumPy, and each held-out token counted once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.data.dataset import validation_batches
from pangu_alpha.data.order import Batch
from pangu_alpha.data.prepare import prepare
from pangu_alpha.model.loss import PAD_ID
from pangu_alpha.model.pangu_alpha import PanguAlphaLoss
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.ranks import Ranks
from pangu_alpha.train.validation import HeldOutScore, LaidOutValidator, Validator
from tests.reference import numpy_pangu
from tests.reference.small_model import noisy_model, reference_shape, weights_of


def test_a_score_is_the_sum_that_numpy_finds_and_every_token_counts_once(folder: Path) -> None:
    config = load_config(str(folder / "small.yaml"), []).config
    prepared = prepare(config, folder / "runs" / "prepared")
    model = noisy_model(config.model, noise=0.05)
    batches = list(validation_batches(prepared.valid, config, 4))
    assert (batches[-1].tokens == PAD_ID).all(-1).any()  # a sample of padding alone fills the last batch
    score = Validator(model, config.model)(batches)
    assert score.tokens == prepared.valid_tokens

    weights, shape = weights_of(model.get_parameters()), reference_shape(config.model)
    everything = Batch(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))
    mean = numpy_pangu.loss(weights, shape, *everything)  # without dropout, though the model has it
    assert config.model.dropout > 0
    assert score.nats == pytest.approx(mean * score.tokens, rel=1e-5)
    assert score.loss == pytest.approx(mean, rel=1e-5)
    # In sequential order, though training is mixed.
    assert (
        np.diff(everything.positions, axis=-1)[everything.segments[:, 1:] == everything.segments[:, :-1]] == 1
    ).all()
    some = Validator(model, config.model)(validation_batches(prepared.valid, config, 4, samples=4))
    assert some.nats == pytest.approx(numpy_pangu.loss(weights, shape, *batches[0]) * some.tokens, rel=1e-5)
    # The vocabulary spells what was counted: characters of the held-out documents, and one for each end.
    assert score.bits_per_character(prepared.valid_characters) == pytest.approx(
        score.nats / math.log(2) / prepared.valid_characters
    )


def test_ranks_of_a_cluster_count_as_one_device_does(folder: Path) -> None:
    config = load_config(str(folder / "small.yaml"), []).config
    prepared = prepare(config, folder / "runs" / "prepared")
    model = noisy_model(config.model, noise=0.05)
    network = PanguAlphaLoss(model, config.model.vocab_size)
    scores = [
        validator(validation_batches(prepared.valid, config, 4))
        for validator in (Validator(model, config.model), LaidOutValidator(network, Layout(), Ranks()))
    ]
    assert scores[0].tokens == scores[1].tokens
    assert scores[1].nats == pytest.approx(scores[0].nats, rel=1e-6)


def test_a_score_of_nothing_and_of_too_much() -> None:
    assert (HeldOutScore(0.0, 0).loss, HeldOutScore(0.0, 0).perplexity) == (0.0, 1.0)
    assert HeldOutScore(1e9, 10).perplexity < math.inf
    assert HeldOutScore(math.log(8.0) * 5, 5).perplexity == pytest.approx(8.0)
    assert HeldOutScore(math.log(2.0) * 30, 5).bits_per_character(10) == pytest.approx(3.0)
