"""The settings of a run's layout on a cluster: section `parallel`."""

from __future__ import annotations

from dataclasses import dataclass

from pangu_alpha.config_checks import require, require_choice


@dataclass(frozen=True)
class ParallelConfig:
    """How a run is laid out on a cluster; with all degrees 1 it is a run of one device (paper section 4)."""

    data_parallel: int = 1
    """Parts that a batch is cut into, each for another group of devices."""
    model_parallel: int = 1
    """Devices that share every matrix product of a layer (operator-level model parallelism)."""
    pipeline_stages: int = 1
    """Groups of devices that hold consecutive layers and work on different micro batches at a time."""
    optimizer_shards: int = 1
    """Data-parallel devices over which weights, moments and gradients are divided (optimizer parallelism); 1: none."""
    recompute: str = "none"
    """none keeps all activations for the backward pass; full computes every layer again; selective only
    `recompute_operators`."""
    recompute_operators: tuple[str, ...] = ("attention", "activation")
    """With recompute: selective: attention (scores and softmax), activation, norm."""
    split_vocabulary: bool = True
    """True divides word table and logits over the model-parallel devices; False keeps a whole table on each
    (published: False for 2.6B and 13B, True in a pipeline)."""
    split_norms: bool = False
    """True also divides LayerNorm and residuals over the model-parallel devices, along the tokens; published: False."""
    stages: str = "published"
    """Which layer sits in which stage: published (layer * stages // layers), or balanced by cost."""
    gradient_fusion_groups: int = 4
    """Groups of consecutive layers whose gradients travel together (published: 4, one group in a pipeline)."""
    overlap_gradients: bool = False
    """True lets gradients travel while others are still computed; published: the default of its time, off."""
    graph_kernel_fusion: bool = False
    """True lets MindSpore fuse small operators of the graph into generated kernels; published: off."""
    jit_level: str = "auto"
    """Optimisation of the device graph: O0 (operator by operator), O1 (fused), O2 (whole graph sunk, Ascend), or
    auto: MindSpore's choice for the device."""
    memory_limit_gib: float = 0.0
    """GiB of a device's memory that MindSpore may take (published: 31); 0: MindSpore's own choice."""
    deterministic: bool = False
    """True makes devices and their collectives add in a fixed order, which is slower; published: off."""
    search: str = "none"
    """none uses the strategies of pangu_alpha/parallel/strategies.py; sharding_propagation lets MindSpore spread the
    strategies of the matrix products over the other operators."""

    def __post_init__(self) -> None:
        for key in (
            "data_parallel", "model_parallel", "pipeline_stages", "optimizer_shards", "gradient_fusion_groups",
        ):  # fmt: skip
            require(getattr(self, key) >= 1, key, getattr(self, key), "it must be at least 1")
        require(
            self.data_parallel % self.optimizer_shards == 0,
            "optimizer_shards",
            self.optimizer_shards,
            f"it must divide data_parallel {self.data_parallel}",
        )
        require_choice("recompute", self.recompute, ("none", "full", "selective"))
        for name in self.recompute_operators:
            require_choice("recompute_operators", name, ("attention", "activation", "norm"))
        require_choice("stages", self.stages, ("published", "balanced"))
        require_choice("jit_level", self.jit_level, ("auto", "O0", "O1", "O2"))
        require_choice("search", self.search, ("none", "sharding_propagation"))
        require(self.memory_limit_gib >= 0, "memory_limit_gib", self.memory_limit_gib, "it must be 0 or more")
