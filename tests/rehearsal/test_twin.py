"""Twins of the published runs: derived by rule, and every file in configs/twins is what the rule gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.twin import MOST_RANKS, derive_twin, format_twin

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RUNS = sorted((CONFIGS / "runs").glob("*.yaml"))
TWINS = {
    "all_five": ("200b_2048_paper", 2),
    "200b_2048": ("200b_2048", 4),
    "200b_2048_paper": ("200b_2048_paper", 4),
    "200b_1024": ("200b_1024", 2),
    "2.6b_512": ("2.6b_512", 2),
    "13b_512": ("13b_512", 2),
    "2.6b_8": ("2.6b_8", 2),
    "13b_16": ("13b_16", 2),
    "350m_8gpu": ("350m_8gpu", 2),
}
"""Twin -> the run that it is derived from, and its pipeline stages."""


def test_every_twin_is_listed_and_every_run_of_several_devices_has_one():
    assert {path.stem for path in (CONFIGS / "twins").glob("*.yaml")} == set(TWINS)
    several = {path.stem for path in RUNS if layout_of(load_config(path).config).devices > 1}
    assert several == {run for run, _ in TWINS.values()}


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_what_the_rule_gives(name):
    run, stages = TWINS[name]
    path = CONFIGS / "runs" / f"{run}.yaml"
    expected = derive_twin(load_config(path).config, stages, name)
    assert load_config(CONFIGS / "twins" / f"{name}.yaml").config == expected
    assert (CONFIGS / "twins" / f"{name}.yaml").read_text() == format_twin(path, load_config(path).config, stages, name)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
@pytest.mark.parametrize("stages", [2, 4])
def test_a_twin_keeps_what_is_proven_of_a_run(path, stages):
    run = load_config(path).config
    twin = derive_twin(run, stages)
    large, small = layout_of(run), layout_of(twin)
    assert small.devices <= MOST_RANKS
    for key in ("data_parallel", "model_parallel", "optimizer_shards"):
        assert (getattr(small, key) > 1) == (getattr(large, key) > 1)
    assert small.pipeline_stages == (stages if large.in_pipeline else 1)
    assert small.micro_batches >= small.pipeline_stages
    for key in ("recompute", "split_vocabulary", "split_norms", "balanced_stages"):
        assert getattr(small, key) == getattr(large, key)
    assert twin.model.final_norm == run.model.final_norm
    assert twin.optimizer.weight_decay == run.optimizer.weight_decay
    assert twin.model.dropout == run.model.dropout == 0.1
