"""The small twin of a run: the same layout with every dimension as small as it can be, for the emulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from pangu_alpha.config import Config, ModelConfig, TrainConfig, to_dict
from pangu_alpha.parallel.layout import layout_of

MOST_RANKS = 16
"""A twin has at most so many ranks."""
MOST_LAYERS_IN_STAGE = 4
"""Layers of a stage, where the run has more."""
SAMPLES_OF_RANK = 2
"""Samples that a data-parallel rank has of each micro batch."""


def derive_twin(run: Config, stages: int = 2, name: str = "") -> Config:
    """The twin of `run`.

    Every dimension above 1 becomes 2, pipeline stages become `stages` (2 or 4); with 4 stages, data and then model
    parallelism drop to 1 if that is what 16 ranks need.  There are at least as many micro batches as stages, at least
    2 where the run accumulates, and 4 in a pipeline.  Norm order, vocabulary split, optimizer shards, recomputation,
    weight decay, clipping and layers per stage (at most 4) stay; widths shrink.  Dropout masks come from the counter,
    so that one device draws the same; weights and gradients are float32, so that differences show.  Samples join
    documents, and some enter in random order.
    """
    layout = layout_of(run)
    in_pipeline = layout.in_pipeline
    stages = stages if in_pipeline else 1
    data, model = min(2, layout.data_parallel), min(2, layout.model_parallel)
    if data * model * stages > MOST_RANKS:
        data = 1
    if data * model * stages > MOST_RANKS:
        model = 1
    per_stage = min(MOST_LAYERS_IN_STAGE, run.model.num_layers // layout.pipeline_stages)
    micro_batches = max(4, stages) if in_pipeline else min(2, layout.micro_batches)
    return dataclasses.replace(
        run,
        name=name or f"{run.name}_twin",
        model=_small_model(run.model, max(2, per_stage * stages)),
        data=dataclasses.replace(
            run.data, order="mixed" if run.model.query_layer else "sequential", permuted_share=0.5, span_length=4
        ),
        optimizer=dataclasses.replace(
            run.optimizer, learning_rate=1e-3, end_learning_rate=1e-4, warmup_steps=2, decay_steps=100
        ),
        train=TrainConfig(
            steps=10,
            batch_size=micro_batches * data * SAMPLES_OF_RANK,
            micro_batches=micro_batches,
            seed=run.train.seed,
        ),
        parallel=dataclasses.replace(
            run.parallel,
            data_parallel=data,
            model_parallel=model,
            pipeline_stages=stages,
            optimizer_shards=min(2, layout.optimizer_shards, data),
            gradient_fusion_groups=min(2, layout.gradient_fusion_groups),
        ),
    )  # fmt: skip


def _small_model(model: ModelConfig, layers: int) -> ModelConfig:
    return dataclasses.replace(
        model,
        vocab_size=64,
        hidden_size=32,
        num_layers=layers,
        num_heads=4,
        seq_length=16,
        dropout_generator="counter",
        compute_dtype="float32",
        initial_values="width_scaled",
    )


def format_twin(run_file: Path, run: Config, stages: int = 2, name: str = "") -> str:
    """The twin of the run in `run_file` as the text of a YAML file beside it in configs/twins, changes alone."""
    was, now = to_dict(run), to_dict(derive_twin(run, stages, name))
    changes = {}
    for key, value in now.items():
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if item != was[key][name]}
            if value:
                changes[key] = value
        elif value != was[key]:
            changes[key] = value
    comment = f"# Twin of configs/runs/{run_file.name}, derived by rule (pangu_alpha/rehearsal/twin.py)"
    comment += f" with {stages} stages.\n" if run.parallel.pipeline_stages > 1 else ".\n"
    return comment + f"extends: ../runs/{run_file.name}\n" + yaml.safe_dump(changes, sort_keys=False)
