"""The layout of one run on a cluster: five dimensions as one small value, with its rules (paper section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from pangu_alpha.config import Config
from pangu_alpha.config_checks import InvalidValue


@dataclass(frozen=True)
class Layout:
    """Who does what.  Everything parallel derives from it.

    Ranks are numbered as in the official code: the model-parallel ranks of a group are neighbours, then come the
    data-parallel groups, then the pipeline stages.
    """

    data_parallel: int = 1
    """Parts of a batch."""
    model_parallel: int = 1
    """Devices that share the matrix products of a layer."""
    pipeline_stages: int = 1
    """Groups of consecutive layers."""
    optimizer_shards: int = 1
    """Data-parallel devices that divide weights, moments and gradients; 1: none."""
    micro_batches: int = 1
    """Parts of a batch that pass one after the other."""
    recompute: str = "none"
    """none, full or selective."""
    recompute_operators: tuple[str, ...] = ()
    """With selective: attention, activation, norm."""
    split_vocabulary: bool = True
    """Whether word table and logits are divided over the model-parallel devices."""
    split_norms: bool = False
    """Whether LayerNorm and residuals are divided over them, too, along the tokens."""
    balanced_stages: bool = False
    """Whether stages are balanced by cost instead of by the published rule."""
    gradient_fusion_groups: int = 4
    """Groups of layers whose gradients travel together."""

    @property
    def devices(self) -> int:
        """Ranks of the whole run."""
        return self.devices_per_stage * self.pipeline_stages

    @property
    def devices_per_stage(self) -> int:
        """Ranks of one pipeline stage."""
        return self.data_parallel * self.model_parallel

    @property
    def in_pipeline(self) -> bool:
        """Whether there is more than one stage."""
        return self.pipeline_stages > 1

    @property
    def divides_optimizer(self) -> bool:
        """Whether weights, moments and gradients are divided over data-parallel devices."""
        return self.optimizer_shards > 1

    @property
    def row_parts(self) -> int:
        """Parts of a batch of which each rank is given one; 1 in a pipeline, whose stages all take whole batches."""
        return 1 if self.in_pipeline else self.data_parallel

    def row_part(self, rank: int) -> int:
        """Which of the `row_parts` of a batch a rank is given."""
        return 0 if self.in_pipeline else self.data_index(rank)

    def stage_of(self, rank: int) -> int:
        """The pipeline stage of a rank."""
        return rank // self.devices_per_stage

    def data_index(self, rank: int) -> int:
        """Which part of the batch a rank works on."""
        return rank % self.devices_per_stage // self.model_parallel

    def model_index(self, rank: int) -> int:
        """Which part of the matrix products a rank computes."""
        return rank % self.model_parallel

    def __str__(self) -> str:
        words = [f"data {self.data_parallel}", f"model {self.model_parallel}", f"pipeline {self.pipeline_stages}"]
        words.append(f"optimizer shards {self.optimizer_shards}")
        words.append(f"micro batches {self.micro_batches}")
        return f"{self.devices} ranks: {', '.join(words)}, recompute {self.recompute}"


def layout_of(config: Config) -> Layout:
    """The layout that `config.parallel` and `train.micro_batches` describe, checked against the model.

    Raises:
        InvalidValue: one line; its key is dotted, such as parallel.model_parallel.
    """
    settings = config.parallel
    layout = Layout(
        data_parallel=settings.data_parallel,
        model_parallel=settings.model_parallel,
        pipeline_stages=settings.pipeline_stages,
        optimizer_shards=settings.optimizer_shards,
        micro_batches=config.train.micro_batches,
        recompute=settings.recompute,
        recompute_operators=settings.recompute_operators if settings.recompute == "selective" else (),
        split_vocabulary=settings.split_vocabulary,
        split_norms=settings.split_norms,
        balanced_stages=settings.stages == "balanced",
        gradient_fusion_groups=settings.gradient_fusion_groups,
    )
    _check(layout, config)
    return layout


def require_data_parallel_alone(layout: Layout) -> None:
    """Check that a layout is one that CPUs can run.

    Raises:
        InvalidValue: it has another dimension than data parallelism.
    """
    for key in ("model_parallel", "pipeline_stages", "optimizer_shards"):
        value = getattr(layout, key)
        if value > 1:
            raise InvalidValue(
                f"parallel.{key}",
                value,
                "on a CPU MindSpore runs data parallelism alone, so it must be 1 there; "
                "`pangu-alpha emulate` runs all five dimensions on this machine",
            )


def _check(layout: Layout, config: Config) -> None:
    model, parallel = config.model, layout.model_parallel
    _divides(parallel, "parallel.model_parallel", model.num_heads, "model.num_heads")
    if model.feed_forward_size % parallel:
        raise InvalidValue(
            "parallel.model_parallel",
            parallel,
            f"it must divide the feed-forward part's inner width {model.feed_forward_size}; "
            "model.feed_forward_ratio sets that",
        )
    if layout.split_vocabulary and model.vocab_size % parallel:
        padded = -(-model.vocab_size // parallel) * parallel
        raise InvalidValue(
            "parallel.model_parallel",
            parallel,
            f"it must divide model.vocab_size {model.vocab_size}; pad the table with model.vocab_size={padded}, or "
            "keep a whole one on each device with parallel.split_vocabulary=false",
        )
    if layout.pipeline_stages > model.num_layers:
        raise InvalidValue(
            "parallel.pipeline_stages", layout.pipeline_stages, f"at most one stage a layer: {model.num_layers}"
        )
    if layout.in_pipeline and layout.micro_batches < layout.pipeline_stages:
        raise InvalidValue(
            "train.micro_batches",
            layout.micro_batches,
            f"a pipeline of {layout.pipeline_stages} stages needs at least as many",
        )
    if layout.in_pipeline and not model.query_layer:
        raise InvalidValue("parallel.pipeline_stages", layout.pipeline_stages, "a plain GPT has no stages here; take 1")
    if layout.in_pipeline and layout.divides_optimizer and parallel > 1 and not layout.split_vocabulary:
        raise InvalidValue(
            "parallel.split_vocabulary",
            "false",
            "in a pipeline with optimizer shards MindSpore (2.10) cannot compile a word table that is whole on each "
            "model-parallel device; true divides it",
        )
    if layout.in_pipeline and layout.optimizer_shards not in (1, layout.data_parallel):
        raise InvalidValue(
            "parallel.optimizer_shards",
            layout.optimizer_shards,
            f"in a pipeline MindSpore (2.10) compiles 1 or parallel.data_parallel {layout.data_parallel}, no other",
        )
    held = model.vocab_size // (parallel if layout.split_vocabulary else 1)
    if layout.in_pipeline and held % layout.optimizer_shards:
        step = layout.optimizer_shards * parallel
        raise InvalidValue(
            "parallel.optimizer_shards",
            layout.optimizer_shards,
            f"in a pipeline it must divide the {held} rows of the word table that a device holds, as MindSpore (2.10) "
            f"cannot compile a table left whole there; take another number, or pad the table with "
            f"model.vocab_size={-(-model.vocab_size // step) * step}",
        )
    rows = config.train.batch_size // layout.micro_batches
    if rows % layout.data_parallel:
        raise InvalidValue(
            "parallel.data_parallel",
            layout.data_parallel,
            f"it must divide the {rows} samples of a micro batch (train.batch_size {config.train.batch_size} / "
            f"train.micro_batches {layout.micro_batches})",
        )
    tokens = rows * model.seq_length
    if (layout.split_norms or not layout.split_vocabulary) and tokens % layout.devices_per_stage:
        key = "parallel.split_norms" if layout.split_norms else "parallel.split_vocabulary"
        raise InvalidValue(
            key,
            str(layout.split_norms if layout.split_norms else layout.split_vocabulary).lower(),
            f"it divides the {tokens} tokens of a micro batch over {layout.devices_per_stage} devices, which must "
            "come out even",
        )


def _divides(divisor: int, key: str, number: int, name: str) -> None:
    if number % divisor:
        near = sorted((n for n in range(1, number + 1) if number % n == 0), key=lambda n: abs(n - divisor))[:3]
        raise InvalidValue(
            key, divisor, f"it must divide {name} {number}; nearest: {', '.join(map(str, sorted(near)))}"
        )
