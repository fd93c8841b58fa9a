"""What each rank holds: the slices of the official strategy files, for every parameter and rank of 2.6B and 13B."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.config_file import load_config
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.model.pangu_alpha import PanguAlphaModel
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.parallel.slices import copies_in_stage, gradient_shares, parameter_slice, places_in_stage
from pangu_alpha.parallel.stages import stages_of_parameter

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OFFICIAL = {"2.6b_512": "pangu_alpha_2.6B_ckpt_strategy.ckpt", "13b_512": "pangu_alpha_13B_cktp_strategy.ckpt"}
PARTS = {
    "backbone.word_embedding.embedding_table": "word_table",
    "backbone.position_embedding.embedding_table": "embedding.position_table",
    "backbone.top_query_embedding.embedding_table": "query_layer.query_table",
    "backbone.layernorm.": "final_norm.",
    "backbone.top_query_layer.": "query_layer.block.",
    "backbone.blocks.": "blocks.",
    "layernorm1": "attention_norm",
    "layernorm2": "feed_forward_norm",
    "attention.dense1": "attention.query",
    "attention.dense2": "attention.key",
    "attention.dense3": "attention.value",
    "attention.projection": "attention.output",
    "output.mapping": "feed_forward.inner",
    "output.projection": "feed_forward.output",
}
"""Published name, or part of one -> ours."""


def our_name(published: str) -> str:
    for part, ours in PARTS.items():
        published = published.replace(part, ours)
    return published


@functools.lru_cache
def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """By the model itself, whose memory nobody touches."""
    model = PanguAlphaModel(config.model, Numerics())
    return {parameter.name: tuple(parameter.shape) for parameter in model.get_parameters()}


def official_bounds(item, shape: tuple[int, ...], rank: int) -> list[tuple[int, int]]:
    """First and last row of each axis that a rank holds, by the fields of a strategy file alone.

    `dev_matrix` has the ranks in row order; `tensor_map` counts its axes from the right; what is left is cut once
    more along the first axis over the ranks that are `opt_weight_shard_step` apart.
    """
    layout = item.parallel_layouts
    matrix = list(layout.dev_matrix[0].dim)
    place = np.unravel_index(rank, matrix)
    bounds = []
    for size, axis in zip(shape, layout.tensor_map[0].dim, strict=True):
        parts, index = (1, 0) if axis < 0 else (matrix[-1 - axis], place[-1 - axis])
        bounds.append((size // parts * index, size // parts * (index + 1)))
    step = layout.opt_weight_shard_step
    if step:
        assert layout.opt_weight_shard_size == -1  # over all of them
        group = range(rank % step, math.prod(matrix), step)
        begin, end = bounds[0]
        length = (end - begin) // len(group)
        begin += length * group.index(rank)
        bounds[0] = (begin, begin + length)
    return bounds


@pytest.mark.parametrize("run", OFFICIAL)
def test_every_slice_is_that_of_the_official_strategy_file(shared_data, run):
    strategy = ParallelStrategyMap()
    strategy.ParseFromString((shared_data / "official" / OFFICIAL[run]).read_bytes())
    items = {our_name(item.param_name): item for item in strategy.parallel_layout_item}
    config = load_config(CONFIGS / "runs" / f"{run}.yaml").config
    layout, shapes = layout_of(config), parameter_shapes(config)
    assert {name for name in items if not name.startswith("adam_")} == set(shapes)
    assert len(items) == 3 * len(shapes)  # and the moments
    seen = set()
    for name, shape in shapes.items():
        cut = re.sub(r"blocks\.\d+", "blocks", name)
        for prefix in ("", "adam_m.", "adam_v."):
            item = items[prefix + name]
            # Layers are alike, so all ranks are looked at in one of them, and some in the others.
            ranks = range(512) if (prefix, cut) not in seen else (0, 7, 8, 300, 511)
            seen.add((prefix, cut))
            for rank in ranks:
                ours = [(part.start, part.stop) for part in parameter_slice(name, shape, layout, rank)]
                assert ours == official_bounds(item, shape, rank), (prefix, name, rank)


LAYOUTS = st.builds(
    lambda data, model, stages, shards, split: Layout(
        data, model, stages, min(shards, data), micro_batches=stages, split_vocabulary=split
    ),
    st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]),
    st.booleans(),
)  # fmt: skip
SMALL = ModelConfig(vocab_size=48, hidden_size=32, num_layers=4, num_heads=4, seq_length=8)


@given(LAYOUTS)
def test_the_slices_of_all_ranks_cover_each_parameter_evenly(layout):
    for name, shape in parameter_shapes(Config(model=SMALL)).items():
        held = np.zeros(shape, int)
        stage = stages_of_parameter(name, SMALL, layout)[0]
        for rank in range(layout.devices):
            if layout.stage_of(rank) == stage:
                held[parameter_slice(name, shape, layout, rank)] += 1
        assert (held == copies_in_stage(name, shape, layout)).all(), name


@given(LAYOUTS, st.integers(0, 99))
def test_each_element_counts_once_in_the_norm(layout, seed):
    # What the step adds up over all ranks is the square sum of the whole gradient.
    generator = np.random.default_rng(seed)
    shapes = parameter_shapes(Config(model=SMALL))
    gradients = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    names, total = list(shapes), np.zeros(len(shapes))
    for rank in range(layout.devices):
        shares = gradient_shares(list(shapes.items()), layout, rank)
        there = [layout.stage_of(rank) in stages_of_parameter(name, SMALL, layout) for name in names]
        squares = [
            (gradients[name][parameter_slice(name, shapes[name], layout, rank)] ** 2).sum() * share
            for name, share, own in zip(names, shares, there, strict=True)
            if own
        ]
        total += np.append(squares, 0.0)[places_in_stage(names, SMALL, layout, rank)]
    np.testing.assert_allclose(total, [(gradients[name] ** 2).sum() for name in names])
