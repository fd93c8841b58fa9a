"""The original release: slices of the ranks of a run with their strategy file and three .npy tables, or one .ckpt.

2.6B and 13B were released as 512 files `filerted_0.ckpt` … `filerted_511.ckpt` (the spelling is theirs): weights
alone, LayerNorms and projection biases whole in every one, the three tables in none; these are .npy files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.formats.mindspore_ckpt import read_checkpoint
from pangu_alpha.checkpoint.formats.names.mindformers import MINDFORMERS, MINDFORMERS_FROM_NPY
from pangu_alpha.checkpoint.formats.names.official import NO_WEIGHTS, OFFICIAL
from pangu_alpha.checkpoint.formats.names.official_pipeline import OFFICIAL_PIPELINE
from pangu_alpha.checkpoint.formats.names.release_1_3 import RELEASE_1_3
from pangu_alpha.checkpoint.formats.numpy_folder import read_array
from pangu_alpha.checkpoint.formats.strategy_file import SavedLayout, read_strategy
from pangu_alpha.checkpoint.formats.tensors import ForeignWeights, StoredTensor
from pangu_alpha.errors import PanguError

MINDSPORE_TABLES = (OFFICIAL, OFFICIAL_PIPELINE, RELEASE_1_3, MINDFORMERS, MINDFORMERS_FROM_NPY)
"""All names under which MindSpore code has kept the model."""
TABLE_FILES = {
    "backbone.word_embedding.embedding_table": "word_embedding.npy",
    "backbone.position_embedding.embedding_table": "position_embedding.npy",
    "backbone.top_query_embedding.embedding_table": "top_query_embedding.npy",
}
"""Tables beside the slices -> how their file names end."""
_NUMBERED = re.compile(r"(.*?)(\d+)\.ckpt")


def is_strategy_name(path: Path) -> bool:
    """Whether a .ckpt file is, by its name, a strategy file."""
    return "strategy" in path.name


def merged(path: Path) -> ForeignWeights:
    """One .ckpt with all weights, or with all but the tables, which then are .npy files beside it."""
    tensors = read_checkpoint(path)
    _add_tables(path.parent, tensors)
    return ForeignWeights("merged checkpoint of MindSpore", path, tensors, MINDSPORE_TABLES)


def slices(path: Path, strategy: Path | None = None) -> ForeignWeights:
    """A folder of slices, in it or below.

    Args:
        path: the folder; slices, tables and the strategy file may lie in folders inside it.
        strategy: the strategy file, where it lies elsewhere.

    Raises:
        PanguError: one line: no strategy file, another number of slices than it tells, a slice that is damaged, or
            whose tensors or shapes are not those of the others.
    """
    files = sorted(item for item in path.rglob("*.ckpt") if item.is_file())
    strategy = strategy or _strategy_among(path, files)
    layouts = read_strategy(strategy)
    by_rank = _by_rank(path, [item for item in files if not is_strategy_name(item)])
    ranks = {layout.ranks for layout in layouts.values()}
    if len(ranks) != 1:
        raise PanguError(f"{strategy}: its parameters were cut for {sorted(ranks)} ranks; one number is expected")
    _check_count(path, strategy, by_rank, ranks.pop())
    held = [_weights_of(by_rank[rank]) for rank in sorted(by_rank)]
    _check_alike(by_rank, held)
    tensors = {name: _assembled(name, layouts, strategy, held) for name in held[0]}
    _add_tables(path, tensors)
    return ForeignWeights(f"{len(held)} slices of MindSpore", path, tensors, MINDSPORE_TABLES)


def _add_tables(folder: Path, tensors: dict[str, StoredTensor]) -> None:
    """Add the tables that lie as .npy in `folder` or below, also as 2B6_word_embedding.npy, unless they are there."""
    if any("embedding_table" in name for name in tensors):
        return
    for name, ending in TABLE_FILES.items():
        found = sorted(folder.rglob(f"*{ending}"))
        if len(found) > 1:
            raise PanguError(f"{folder}: {found[0].name} and {found[1].name} are both {ending}; keep the right one")
        if not found:
            raise PanguError(f"{folder}: {ending} is missing; the three tables were released beside the other weights")
        tensors[name] = read_array(found[0])


def _strategy_among(path: Path, files: Sequence[Path]) -> Path:
    found = [item for item in files if is_strategy_name(item)]
    found += [item for item in sorted(path.rglob("*strategy*")) if item.is_file() and item not in found]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(item.name for item in found[:3])
        raise PanguError(f"{path}: several strategy files ({names}); keep that of these slices, or name it: --strategy")
    raise PanguError(
        f"{path}: no strategy file (*strategy*.ckpt) lies with the slices; it tells how they were cut: put it there "
        "(the release has it in strategy_load_ckpt/), or name it with --strategy FILE"
    )


def _by_rank(path: Path, files: Sequence[Path]) -> dict[int, Path]:
    result: dict[int, Path] = {}
    for item in files:
        match = _NUMBERED.fullmatch(item.name)
        if match is None:
            raise PanguError(f"{item}: a slice's name ends with its rank, as filerted_0.ckpt does; move others away")
        rank = int(match[2])
        if rank in result:
            raise PanguError(f"{path}: {result[rank].name} and {item.name} are both slice {rank}; keep the right one")
        result[rank] = item
    return result


def _check_count(path: Path, strategy: Path, by_rank: Mapping[int, Path], ranks: int) -> None:
    missing = sorted(set(range(ranks)) - set(by_rank))
    extra = sorted(set(by_rank) - set(range(ranks)))
    if missing or extra:
        what = f"slice {missing[0]} is missing" if missing else f"{by_rank[extra[0]].name} has no place"
        raise PanguError(f"{path}: {len(by_rank)} slices; {strategy.name} tells of {ranks}, and {what}")


def _weights_of(path: Path) -> dict[str, StoredTensor]:
    ignored = re.compile(NO_WEIGHTS)
    return {name: tensor for name, tensor in read_checkpoint(path).items() if not ignored.match(name)}


def _check_alike(by_rank: Mapping[int, Path], held: Sequence[Mapping[str, StoredTensor]]) -> None:
    """All ranks of a run without pipeline hold a part of every parameter, of one shape and type."""
    first = held[0]
    for rank, tensors in enumerate(held):
        differing = sorted(set(first) ^ set(tensors))
        if differing:
            there = differing[0] in tensors
            raise PanguError(
                f"{by_rank[rank]}: tensor {differing[0]} is {'too many' if there else 'missing'}; "
                f"{by_rank[0].name} has {'none' if there else 'it'}"
            )
        for name, tensor in tensors.items():
            if (tensor.shape, tensor.dtype) != (first[name].shape, first[name].dtype):
                raise PanguError(
                    f"{by_rank[rank]}: tensor {name} is {tensor.dtype} {list(tensor.shape)}; "
                    f"{first[name].dtype} {list(first[name].shape)} in {by_rank[0].name}"
                )


def _assembled(
    name: str, layouts: Mapping[str, SavedLayout], strategy: Path, held: Sequence[Mapping[str, StoredTensor]]
) -> StoredTensor:
    """A parameter from the parts of all ranks; a part that several ranks hold is read once."""
    if name not in layouts:
        raise PanguError(f"{strategy}: it does not tell how {name} was cut; it belongs to other slices")
    layout, first = layouts[name], held[0][name]
    if len(layout.axes) != first.ndim:
        raise PanguError(f"{first.place}: tensor {name} has {first.ndim} axes; {len(layout.axes)} in {strategy.name}")
    shape = layout.full_shape(first.shape)

    def read() -> np.ndarray:
        result = np.empty(shape, first.dtype)
        done: set[tuple[tuple[int, int], ...]] = set()
        for rank, tensors in enumerate(held):
            part = layout.part(first.shape, rank)
            key = tuple((bounds.start, bounds.stop) for bounds in part)
            if key not in done:
                result[part] = tensors[name].read()
                done.add(key)
        return result

    return StoredTensor(first.place, shape, first.dtype, read)
