"""A checkpoint as MindSpore's own training leaves it: a folder a rank with what the rank holds, and the strategy file.

`mindspore.transform_checkpoints`, `load_distributed_checkpoint` and `unified_safetensors` take them.  In a pipeline the
strategy file is the merged one of all stages, whose names begin with the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.formats.mindspore_ckpt import write_checkpoint
from pangu_alpha.checkpoint.formats.safetensors_file import write_safetensors
from pangu_alpha.checkpoint.formats.tensors import StoredTensor
from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.ownership import is_laid_out, parameter_of
from pangu_alpha.config import Config
from pangu_alpha.interrupts import unbroken_import
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.slices import optimizer_parts, parameter_parts, parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter

STRATEGY = "strategy.ckpt"
_WRITERS = {"ckpt": write_checkpoint, "safetensors": write_safetensors}


def write_rank_folders(
    folder: Path,
    source: Checkpoint,
    names: Mapping[str, str],
    config: Config,
    layout: Layout,
    file_type: str,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Write rank_<n>/slice_<n>.<type> for every rank, and the strategy file; gives back the bytes of all tensors.

    Args:
        folder: an empty directory.
        source: whose weights and moments are written, verified before; each rank's part is read by itself.
        names: ours -> theirs, of the weights; a moment has the same name behind its prefix.
        config: of the model.
        layout: of the ranks.
        file_type: ckpt or safetensors.
        advance: called after each rank.
    """
    tensors = {name: entry.shape for name, entry in source.entries.items() if is_laid_out(name)}
    theirs = {name: name.removesuffix(parameter_of(name)) + names[parameter_of(name)] for name in tensors}
    total = 0
    for rank in range(layout.devices):
        own = {}
        for name, shape in tensors.items():
            weight = parameter_of(name)
            if layout.stage_of(rank) in stages_of_parameter(weight, config.model, layout):
                own[theirs[name]] = _stored(source, name, parameter_slice(weight, shape, layout, rank))
        place = folder / f"rank_{rank}"
        place.mkdir()
        _WRITERS[file_type](place / f"slice_{rank}.{file_type}", own)
        total += sum(tensor.nbytes for tensor in own.values())
        advance()
    _write_strategy(folder / STRATEGY, tensors, theirs, config, layout)
    return total


def _stored(source: Checkpoint, name: str, part: tuple[slice, ...]) -> StoredTensor:
    shape = tuple(axis.stop - axis.start for axis in part)
    place = str(source.directory / source.entries[name].file)
    return StoredTensor(place, shape, np.dtype(source.entries[name].dtype), lambda: source.part(name, part))


def _write_strategy(
    path: Path, tensors: Mapping[str, tuple[int, ...]], theirs: Mapping[str, str], config: Config, layout: Layout
) -> None:
    """The layout of each parameter, as MindSpore saves it with `strategy_ckpt_config`."""
    with unbroken_import():
        from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

    content = ParallelStrategyMap()
    content.current_stage = 1
    for name, shape in tensors.items():
        weight = parameter_of(name)
        parts = parameter_parts(weight, layout)
        shards = optimizer_parts(weight, shape, layout)
        for stage in stages_of_parameter(weight, config.model, layout):
            item = content.parallel_layout_item.add()
            item.param_name = f"{stage}-{theirs[name]}" if layout.in_pipeline else theirs[name]
            cut = item.parallel_layouts
            cut.dev_matrix.add().dim.extend([layout.data_parallel, layout.model_parallel])
            cut.tensor_map.add().dim.extend(0 if count > 1 else -1 for count in parts)
            cut.param_split_shape.add()
            cut.indices_offset.add()
            cut.field = 0
            cut.opt_weight_shard_step = layout.model_parallel if shards > 1 else 0
            cut.opt_weight_shard_size = shards if shards > 1 else 0
    for stage in range(layout.pipeline_stages):  # MindSpore tells stages by these
        operator = content.parallel_strategy_item.add()
        operator.node_name = f"stage_{stage}"
        operator.parallel_strategys.stage = stage
    path.write_bytes(content.SerializeToString())
