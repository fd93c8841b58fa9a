"""Small models written in the published forms by MindSpore's own functions; shares no code with what reads them."""

from __future__ import annotations

from pathlib import Path

import mindspore
import numpy as np
from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

VOCABULARY, HIDDEN, BLOCKS, LENGTH, RANKS, MODEL_PARALLEL = 128, 32, 2, 16, 8, 2
INNER = 4 * HIDDEN
TABLES = ("word_embedding", "position_embedding", "top_query_embedding")
# As in the official files: which axis the two model-parallel ranks cut (0: the last of the device matrix), -1: none.
MAPS = {
    "dense1.weight": (0, -1), "dense2.weight": (0, -1), "dense3.weight": (0, -1), "dense1.bias": (0,),
    "dense2.bias": (0,), "dense3.bias": (0,), "attention.projection.weight": (0, -1), "mapping.weight": (-1, 0),
    "mapping.bias": (0,), "output.projection.weight": (0, -1), "projection.bias": (-1,),
}  # fmt: skip
NOT_SHARDED = ("gamma", "beta", "embedding_table", "projection.bias")


def official_tensors(seed: int = 1) -> dict[str, np.ndarray]:
    """All weights under the released names, float32."""
    generator = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) * 0.05).astype(np.float32)

    tensors = {
        "backbone.word_embedding.embedding_table": random(VOCABULARY, HIDDEN),
        "backbone.position_embedding.embedding_table": random(LENGTH, HIDDEN),
        "backbone.top_query_embedding.embedding_table": random(LENGTH, HIDDEN),
        "backbone.layernorm.gamma": 1 + random(HIDDEN),
        "backbone.layernorm.beta": random(HIDDEN),
    }
    for block in [*(f"backbone.blocks.{number}" for number in range(BLOCKS)), "backbone.top_query_layer"]:
        for norm in ("layernorm1", "layernorm2"):
            tensors[f"{block}.{norm}.gamma"] = 1 + random(HIDDEN)
            tensors[f"{block}.{norm}.beta"] = random(HIDDEN)
        for part in ("dense1", "dense2", "dense3", "projection"):
            tensors[f"{block}.attention.{part}.weight"] = random(HIDDEN, HIDDEN)
            tensors[f"{block}.attention.{part}.bias"] = random(HIDDEN)
        tensors[f"{block}.output.mapping.weight"] = random(HIDDEN, INNER)
        tensors[f"{block}.output.mapping.bias"] = random(INNER)
        tensors[f"{block}.output.projection.weight"] = random(INNER, HIDDEN)
        tensors[f"{block}.output.projection.bias"] = random(HIDDEN)
    return tensors


def write_merged(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A merged .ckpt."""
    mindspore.save_checkpoint(
        [{"name": name, "data": mindspore.Tensor(value)} for name, value in tensors.items()], str(path)
    )


def write_strategy(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A strategy file with the fields of the official ones."""
    strategy = ParallelStrategyMap()
    strategy.current_stage = 0
    for name, value in tensors.items():
        item = strategy.parallel_layout_item.add()
        item.param_name = name
        layout = item.parallel_layouts
        layout.dev_matrix.add().dim.extend([RANKS // MODEL_PARALLEL, MODEL_PARALLEL])
        cut = next((axes for end, axes in MAPS.items() if name.endswith(end)), (-1,) * value.ndim)
        layout.tensor_map.add().dim.extend(cut)
        layout.param_split_shape.add().dim.extend([])
        layout.indices_offset.add().dim.extend([])
        layout.field = 0
        sharded = not name.endswith(NOT_SHARDED)
        layout.opt_weight_shard_step = MODEL_PARALLEL if sharded else 0
        layout.opt_weight_shard_size = -1 if sharded else 0
    path.write_bytes(strategy.SerializeToString())


def write_slices(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """The released form: slices cut by MindSpore, three tables as .npy, and the strategy file; gives its path."""
    folder.mkdir(parents=True)
    strategy = folder / "small_strategy.ckpt"
    write_strategy(strategy, tensors)
    merged = folder / "merged_first.ckpt"
    write_merged(merged, tensors)
    for rank in range(RANKS):
        whole = folder / f"whole_{rank}.ckpt"
        mindspore.transform_checkpoint_by_rank(rank, {0: str(merged)}, str(whole), None, str(strategy))
        sliced = mindspore.load_checkpoint(str(whole))
        kept = {name: value.asnumpy() for name, value in sliced.items() if not name.endswith("embedding_table")}
        write_merged(folder / f"filerted_{rank}.ckpt", kept)
        whole.chmod(0o600)
        whole.unlink()
    merged.chmod(0o600)
    merged.unlink()
    for table in TABLES:
        np.save(folder / f"{table}.npy", tensors[f"backbone.{table}.embedding_table"])
    return strategy
