"""A checkpoint for another layout or precision, from the checkpoint alone, a tensor in memory at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.checksum import Checksum, checksum_of
from pangu_alpha.checkpoint.format import (
    MANIFEST,
    FileEntry,
    Manifest,
    TensorEntry,
    canonical_sha256,
    rank_file,
    step_name,
)
from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.checkpoint.ownership import OwnedPart, is_laid_out, owned_parts, parameter_of, ranks_of
from pangu_alpha.checkpoint.rank_share import describe_layout
from pangu_alpha.checkpoint.save import library_versions
from pangu_alpha.checkpoint.tensor_file import tensors_header
from pangu_alpha.config import Config, to_dict
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.progress import Progress

PRECISIONS = ("float32", "float16")
_BLOCK = 1 << 20


def convert(source: Checkpoint, checkpoints: Path, config: Config, precision: str = "", pieces: int = 0) -> Path:
    """Write a checkpoint for the layout of `config` as `checkpoints/step_…`.

    Args:
        source: any checkpoint; parts of several ranks are put together on the way.
        checkpoints: where it goes.
        config: its `parallel` and `train.micro_batches` are the layout; its model must be the checkpoint's, but that
            `model.vocab_size` may be larger (rows of zeros are added to the word table) or smaller (padding rows go).
        precision: of weights and moments: float32 or float16; empty: as they are.  What lies outside float16's range is
            an error, not infinite.
        pieces: of the vocabulary; rows below are never left out.  0: not known, all rows stay.

    Returns:
        The new checkpoint's directory.

    Raises:
        PanguError: another model, a layout that does not fit it, no space, or a damaged tensor.
    """
    layout = layout_of(config)
    rows = config.model.vocab_size
    _require_same_model(source, config, pieces)
    kinds = {
        name: (
            precision if precision and is_laid_out(name) else entry.dtype,
            (rows, *entry.shape[1:]) if parameter_of(name) == "word_table" else entry.shape,
        )
        for name, entry in source.entries.items()
    }
    manifest = dataclasses.replace(
        source.manifest,
        created=time.time(),
        config={
            **source.manifest.config,
            "parallel": to_dict(config)["parallel"],
            "model": {**source.manifest.config["model"], "vocab_size": rows},
        },
        versions=library_versions(),
    )
    with Progress("converting", len(kinds), "tensors") as progress:
        parts = cut_tensors(_cast(source, kinds, progress), config, layout)
        return write_sharded(checkpoints, manifest, kinds, parts, config, layout)


def cut_tensors(
    tensors: Iterable[tuple[str, np.ndarray]], config: Config, layout: Layout
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, rank and values of each part, of whole tensors as they come."""
    for name, array in tensors:
        for part in owned_parts(name, array.shape, config.model, layout):
            yield name, part.rank, array[tuple(slice(*border) for border in part.slice)]


def _cast(
    source: Checkpoint, kinds: Mapping[str, tuple[str, tuple[int, ...]]], progress: Progress
) -> Iterable[tuple[str, np.ndarray]]:
    for name, array in source.tensors():
        kind, shape = kinds[name]
        if array.shape != shape:
            added = np.zeros((max(0, shape[0] - len(array)), *shape[1:]), array.dtype)
            array = np.concatenate([array[: shape[0]], added])
        with np.errstate(over="ignore"):  # looked at below
            result = array.astype(kind, copy=False)
        if kind == "float16" and not np.isfinite(result).all() and np.isfinite(array).all():
            raise PanguError(f"{source.directory}: tensor {name} exceeds the range of float16; keep float32")
        yield name, result
        progress.advance()


def _require_same_model(source: Checkpoint, config: Config, pieces: int) -> None:
    there, here = source.manifest.config["model"], to_dict(config)["model"]
    least = pieces or there["vocab_size"]
    if here["vocab_size"] < least:
        raise PanguError(
            f"{source.directory}: model.vocab_size is {here['vocab_size']} in the configuration; {least} rows of the "
            f"word table are needed: add model.vocab_size={least} or more"
        )
    for key in ("hidden_size", "num_layers", "num_heads", "seq_length", "query_layer", "final_norm"):
        if there.get(key, here[key]) != here[key]:
            raise PanguError(
                f"{source.directory}: model.{key} is {there[key]} there and {here[key]} in the configuration; "
                f"add model.{key}={there[key]}"
            )


def write_sharded(
    checkpoints: Path,
    manifest: Manifest,
    kinds: Mapping[str, tuple[str, tuple[int, ...]]],
    values: Iterable[tuple[str, int, np.ndarray]],
    config: Config,
    layout: Layout,
) -> Path:
    """Write parts of tensors as a checkpoint of several ranks' files, each as it comes.

    Args:
        checkpoints: where the directory goes.
        manifest: its layout, files and tensors are replaced.
        kinds: type and whole shape of each tensor.
        values: name, rank and values of every part that `owned_parts` gives to a rank, in any order.
        config: of the model.
        layout: of the files.

    Raises:
        PanguError: no space, read-only, no permission; nothing is left behind.
    """
    parts = {name: owned_parts(name, shape, config.model, layout) for name, (_, shape) in kinds.items()}
    directory = checkpoints / step_name(manifest.step)
    with atomic_directory(directory) as partial:
        places = {rank: _begin(partial / rank_file(rank), rank, kinds, parts) for rank in ranks_of(parts)}
        slices = {(part.rank, name): part.slice for name, own in parts.items() for part in own}
        entries: dict[tuple[int, str], TensorEntry] = {}
        for name, rank, array in values:
            kind, shape = kinds[name]
            stored = np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<")).tobytes()
            _write_at(partial / rank_file(rank), places[rank][name], stored)
            entries[rank, name] = TensorEntry(
                name, rank_file(rank), shape, kind, slices[rank, name], checksum_of(stored)
            )
        missing = slices.keys() - entries.keys()
        if missing:
            rank, name = min(missing)
            raise PanguError(f"{directory}: rank {rank} gave no values of tensor {name}")
        files = tuple(_file_entry(partial / rank_file(rank)) for rank in places)
        ordered = tuple(entries[rank, name] for rank, names in places.items() for name in names)
        complete = dataclasses.replace(
            manifest,
            layout=describe_layout(layout),
            files=files,
            tensors=ordered,
            config_sha256=canonical_sha256(dict(manifest.config)),
        )
        (partial / MANIFEST).write_text(complete.to_json(), encoding="utf-8")
    return directory


def _begin(
    path: Path,
    rank: int,
    kinds: Mapping[str, tuple[str, tuple[int, ...]]],
    parts: Mapping[str, list[OwnedPart]],
) -> dict[str, int]:
    """A rank's file at its full size with its header; where each tensor's values go."""
    own = {
        name: (kinds[name][0], tuple(stop - start for start, stop in part.slice))
        for name, all_parts in parts.items()
        for part in all_parts
        if part.rank == rank
    }
    beginning, places = tensors_header(own)
    size = len(beginning) + sum(
        int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize for kind, shape in own.values()
    )
    with path.open("wb") as file:
        file.write(beginning)
        file.truncate(size)
    return places


def _write_at(path: Path, place: int, values: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(values)


def _file_entry(path: Path) -> FileEntry:
    checksum = Checksum()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum.update(block)
    return FileEntry(path.name, path.stat().st_size, str(checksum))
