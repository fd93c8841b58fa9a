"""A layout: who does what, and what it refuses, in one line that names the key."""

from __future__ import annotations

import dataclasses

import pytest

from pangu_alpha.config import Config, ModelConfig, TrainConfig
from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.parallel.layout import Layout, layout_of

MODEL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=8, num_heads=4, seq_length=16)


def config(model: dict | None = None, batch_size: int = 16, micro_batches: int = 4, **parallel: object) -> Config:
    return Config(
        model=dataclasses.replace(MODEL, **(model or {})),
        train=TrainConfig(batch_size=batch_size, micro_batches=micro_batches),
        parallel=ParallelConfig(**parallel),
    )


def test_one_device_is_the_default():
    layout = layout_of(Config())
    assert (layout.devices, layout.in_pipeline, layout.divides_optimizer) == (1, False, False)


def test_ranks_are_numbered_as_in_the_official_code():
    # Neighbours share matrix products; then data parallel groups; then stages.
    layout = Layout(data_parallel=2, model_parallel=4, pipeline_stages=3)
    assert layout.devices == 24
    places = [(layout.stage_of(r), layout.data_index(r), layout.model_index(r)) for r in range(24)]
    assert places == [(stage, data, model) for stage in range(3) for data in range(2) for model in range(4)]


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        (config(model_parallel=3), "parallel.model_parallel", "it must divide model.num_heads 4; nearest: 1, 2, 4"),
        (
            config({"vocab_size": 63}, model_parallel=2),
            "parallel.model_parallel",
            "it must divide model.vocab_size 63; pad the table with model.vocab_size=64, or",
        ),
        (
            config({"feed_forward_ratio": 2.6}, model_parallel=2),
            "parallel.model_parallel",
            "it must divide the feed-forward part's inner width 83",
        ),
        (config(pipeline_stages=9, micro_batches=16), "parallel.pipeline_stages", "at most one stage a layer: 8"),
        (config(pipeline_stages=8), "train.micro_batches", "a pipeline of 8 stages needs at least as many"),
        (config({"query_layer": False}, pipeline_stages=2), "parallel.pipeline_stages", "plain GPT"),
        (
            config(
                data_parallel=2, optimizer_shards=2, model_parallel=2, pipeline_stages=2, split_vocabulary=False
            ),
            "parallel.split_vocabulary",
            "in a pipeline with optimizer shards MindSpore (2.10) cannot compile a word table that is whole",
        ),
        (
            config(data_parallel=4, optimizer_shards=2, pipeline_stages=2),
            "parallel.optimizer_shards",
            "in a pipeline MindSpore (2.10) compiles 1 or parallel.data_parallel 4",
        ),
        (
            config({"vocab_size": 62}, data_parallel=2, optimizer_shards=2, model_parallel=2, pipeline_stages=2),
            "parallel.optimizer_shards",
            "cannot compile a table left whole there; take another number, or pad the table with model.vocab_size=64",
        ),
        (config(data_parallel=8), "parallel.data_parallel", "it must divide the 4 samples of a micro batch"),
        (
            config({"seq_length": 1}, 2, 1, data_parallel=2, model_parallel=4, split_norms=True),
            "parallel.split_norms",
            "it divides the 2 tokens of a micro batch over 8 devices",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_does_not_fit_is_one_line(given, key, message):
    with pytest.raises(InvalidValue) as caught:
        layout_of(given)
    assert caught.value.key == key
    assert message in caught.value.allowed
    assert "\n" not in str(caught.value)


def test_a_whole_word_table_needs_no_division():
    assert not layout_of(config({"vocab_size": 63}, model_parallel=2, split_vocabulary=False)).split_vocabulary


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer_shards": 3, "data_parallel": 4}, "optimizer_shards is 3; it must divide data_parallel 4"),
        ({"data_parallel": 0}, "data_parallel is 0; it must be at least 1"),
        ({"recompute": "some"}, "recompute is 'some'; allowed: none, full, selective"),
        ({"recompute_operators": ("loss",)}, "allowed: attention, activation, norm"),
    ],
)
def test_settings_are_checked(given, message):
    with pytest.raises(InvalidValue) as caught:
        ParallelConfig(**given)
    assert message in str(caught.value)
