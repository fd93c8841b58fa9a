"""Published weights in: the released slices, a merged .ckpt, or a folder of .npy files."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.format import step_name
from pangu_alpha.checkpoint.formats.builder import CheckpointBuilder
from pangu_alpha.checkpoint.formats.mindspore_files import SliceLayout, read_ckpt, read_strategy
from pangu_alpha.checkpoint.formats.names import TABLE_FILES, name_map
from pangu_alpha.checkpoint.run_directory import RunDirectory
from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory, atomic_write
from pangu_alpha.progress import Progress

logger = logging.getLogger(__name__)

SLICES, MERGED, ARRAYS = "slices", "merged", "arrays"
_SLICE_NAME = re.compile(r"filerted_(\d+)\.ckpt$")  # as released
_KNOWN_HEADS = {(1024, 24): 16, (1024, 16): 32, (2560, 32): 32, (5120, 40): 40, (16384, 64): 128}
"""Hidden size and layers, the query layer included -> heads, of the published sizes (facts that no file states)."""

Kinds = dict[str, tuple[str, tuple[int, ...]]]


def recognise(path: Path) -> str:
    """Which of the forms a file or folder is, by looking.

    Raises:
        PanguError: none of them.
    """
    if path.is_file() and path.suffix == ".ckpt":
        return MERGED
    if path.is_dir():
        names = [item.name for item in path.rglob("*") if item.is_file()]
        if any(_SLICE_NAME.search(name) for name in names):
            return SLICES
        if sum(name.endswith(".npy") for name in names) > len(TABLE_FILES):
            return ARRAYS
    raise PanguError(
        f"{path} is none of: a folder of filerted_*.ckpt slices with its .npy tables, a merged .ckpt file, a folder "
        "with a .npy file for each tensor"
    )


def import_published(
    path: Path,
    run: Path,
    config: Config,
    vocabulary: Path,
    strategy: Path | None = None,
    given: frozenset[str] = frozenset(),
) -> Path:
    """Make a run directory of published weights, from which generation and training start.

    Args:
        path: what was published.
        run: the run directory; its checkpoint is step 0.
        config: numerics and names; its model's sizes are replaced by what the weights say.
        vocabulary: the tokenizer's model.
        strategy: of slices: the strategy file; None: the one beside them.
        given: keys of `model` that the user gave, which win: num_heads, final_norm …

    Returns:
        The checkpoint's directory.

    Raises:
        PanguError: a missing or extra tensor, a wrong shape, a slice that is missing or cut short.
    """
    from pangu_alpha.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(vocabulary)
    form = recognise(path)
    logger.info(
        "%s: %s",
        path,
        {SLICES: "slices of a cluster", MERGED: "a merged .ckpt", ARRAYS: "a file for each tensor"}[form],
    )
    target = RunDirectory(run)
    with atomic_directory(target.checkpoints / step_name(0)) as partial:
        if form == SLICES:
            model = _import_slices(path, strategy, partial, config, given, tokenizer.sha256)
        else:
            tensors = read_ckpt(path) if form == MERGED else dict(_arrays(path))
            names = name_map(tensors, str(path))
            kinds: Kinds = {ours: (_kind(tensors[name]), tensors[name].shape) for name, ours in names.items()}
            model = model_of({name: shape for name, (_, shape) in kinds.items()}, config.model, given, str(path))
            builder = CheckpointBuilder(partial, kinds)
            for name, ours in names.items():
                builder.put(ours, tensors[name])
            builder.finish(dataclasses.replace(config, model=model), tokenizer.sha256, path.name)
    with atomic_write(target.tokenizer) as file:
        file.write(vocabulary.read_bytes())
    if tokenizer.vocab_size > model.vocab_size:
        raise PanguError(
            f"{vocabulary} has {tokenizer.vocab_size} pieces, and the weights' word table {model.vocab_size} rows"
        )
    return target.checkpoints / step_name(0)


def _kind(array: np.ndarray) -> str:
    return "float16" if array.dtype == np.float16 else "float32"


def _arrays(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of a folder with one .npy file each, named as they are published."""
    for path in sorted(folder.rglob("*.npy")):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise PanguError(f"{path} is no .npy file, or is cut short ({error})") from None
        name = path.stem
        table = next((ours for part, ours in TABLE_FILES.items() if name.endswith(part)), None)
        yield (f"backbone.{name}.embedding_table" if table and "." not in name else name), array


def _import_slices(
    folder: Path, strategy: Path | None, partial: Path, config: Config, given: frozenset[str], tokenizer_sha256: str
) -> ModelConfig:
    """Put the slices together, one file in memory at a time."""
    layouts = read_strategy(strategy or _strategy_beside(folder))
    files = {int(match[1]): item for item in folder.rglob("*.ckpt") if (match := _SLICE_NAME.search(item.name))}
    ranks = next(iter(layouts.values())).ranks
    missing = [rank for rank in range(ranks) if rank not in files]
    if missing or len(files) > ranks:
        raise PanguError(
            f"{folder}: the strategy file tells of {ranks} slices, and {len(files)} are there"
            + (
                f"; filerted_{missing[0]}.ckpt is missing"
                if missing
                else "; give the strategy file that belongs to them"
            )
        )
    tables = _tables(folder)
    first = read_ckpt(files[0])
    names = name_map([*first, *(name for name, _ in tables.values())], str(folder))
    kinds = _whole_kinds(first, names, layouts, str(files[0]))
    for ours, (_, array) in tables.items():
        kinds[ours] = (_kind(array), array.shape)
    model = model_of({name: shape for name, (_, shape) in kinds.items()}, config.model, given, str(folder))
    builder = CheckpointBuilder(partial, kinds)
    for ours, (_, array) in tables.items():
        builder.put(ours, array)
    with Progress("putting slices together", ranks, "slices") as progress:
        for rank in range(ranks):
            _put_slice(builder, read_ckpt(files[rank]), names, layouts, rank, files[rank], set(tables))
            progress.advance()
    builder.finish(dataclasses.replace(config, model=model), tokenizer_sha256, folder.name)
    return model


def _put_slice(
    builder: CheckpointBuilder,
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    layouts: Mapping[str, SliceLayout],
    rank: int,
    path: Path,
    tables: set[str],
) -> None:
    for name, ours in names.items():
        if ours in tables:
            continue
        if name not in tensors:
            raise PanguError(f"{path}: tensor {name} is missing; is the slice cut short?")
        layout, array = layouts[name], tensors[name]
        cut = layout.cut(rank, array.shape)
        # Of equal copies the first is taken.
        if rank == _first_with(layout, cut, array.shape, rank):
            try:
                builder.put(ours, array, cut)
            except PanguError as error:
                raise PanguError(f"{path}: {error}") from None


def _first_with(layout: SliceLayout, cut: tuple[slice, ...], stored: tuple[int, ...], rank: int) -> int:
    """The lowest rank whose piece is the same part."""
    for other in range(rank):
        if layout.cut(other, stored) == cut:
            return other
    return rank


def _whole_kinds(
    first: Mapping[str, np.ndarray], names: Mapping[str, str], layouts: Mapping[str, SliceLayout], place: str
) -> Kinds:
    kinds: Kinds = {}
    for name, ours in names.items():
        if name not in first:
            continue
        if name not in layouts:
            raise PanguError(f"{place}: the strategy file does not tell how tensor {name} was cut")
        stored = first[name]
        whole = tuple(size * parts for size, parts in zip(stored.shape, layouts[name].parts(), strict=True))
        kinds[ours] = (_kind(stored), whole)
    return kinds


def _strategy_beside(folder: Path) -> Path:
    found = [
        item for item in (*folder.rglob("*strategy*.ckpt"), *folder.parent.glob("*strategy*.ckpt")) if item.is_file()
    ]
    if not found:
        raise PanguError(
            f"{folder}: no strategy file (*strategy*.ckpt) lies beside the slices; name it with --strategy FILE"
        )
    return found[0]


def _tables(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    """The three tables that the release has as .npy files: our name -> published name and values."""
    found: dict[str, tuple[str, np.ndarray]] = {}
    for path in sorted((*folder.rglob("*.npy"), *folder.parent.glob("*.npy"))):
        for part, ours in TABLE_FILES.items():
            if path.stem.endswith(part) and not (part == "position_embedding" and "query" in path.stem):
                found[ours] = (f"backbone.{part}.embedding_table", np.load(path, mmap_mode="r", allow_pickle=False))
    missing = [part for part, ours in TABLE_FILES.items() if ours not in found]
    if missing:
        raise PanguError(f"{folder}: {missing[0]}.npy is missing; the release has it beside the slices")
    return found


def model_of(
    shapes: Mapping[str, tuple[int, ...]], base: ModelConfig, given: frozenset[str], place: str
) -> ModelConfig:
    """The model that has tensors of these shapes, checked tensor by tensor.

    Raises:
        PanguError: a tensor is missing, too many, or of another shape; or heads are not known for this size.
    """
    for name in ("word_table", "embedding.position_table", "query_layer.query_table"):
        if name not in shapes:
            raise PanguError(f"{place}: tensor {name} (a table) is missing")
    rows, hidden = shapes["word_table"]
    blocks = 1 + max((int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")), default=-1)
    heads = base.num_heads if "num_heads" in given else _KNOWN_HEADS.get((hidden, blocks + 1))
    if heads is None:
        raise PanguError(
            f"{place}: hidden size {hidden} with {blocks + 1} layers is no published size, so its heads are not known; "
            "add model.num_heads=…"
        )
    model = dataclasses.replace(
        base,
        vocab_size=rows,
        hidden_size=hidden,
        num_layers=blocks + 1,
        num_heads=heads,
        seq_length=shapes["embedding.position_table"][0],
        query_layer=True,
        final_norm=base.final_norm if "final_norm" in given else ("after_query" if hidden == 16384 else "before_query"),
    )
    expected = _expected_shapes(model)
    for name, shape in expected.items():
        if name not in shapes:
            raise PanguError(f"{place}: tensor {name} of shape {list(shape)} is missing")
        if tuple(shapes[name]) != shape:
            raise PanguError(f"{place}: tensor {name} has shape {list(shapes[name])}; {list(shape)} is expected")
    extra = sorted(shapes.keys() - expected.keys())
    if extra:
        raise PanguError(f"{place}: tensor {extra[0]} has no place in a model of {blocks + 1} layers")
    return model


def _expected_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = model.hidden_size, model.feed_forward_size
    shapes: dict[str, tuple[int, ...]] = {
        "word_table": (model.vocab_size, hidden),
        "embedding.position_table": (model.seq_length, hidden),
        "query_layer.query_table": (model.seq_length, hidden),
        "final_norm.gamma": (hidden,),
        "final_norm.beta": (hidden,),
    }
    for block in [*(f"blocks.{number}" for number in range(model.num_blocks)), "query_layer.block"]:
        for part in ("query", "key", "value", "output"):
            shapes[f"{block}.attention.{part}.weight"] = (hidden, hidden)
            shapes[f"{block}.attention.{part}.bias"] = (hidden,)
        for norm in ("attention_norm", "feed_forward_norm"):
            shapes[f"{block}.{norm}.gamma"] = shapes[f"{block}.{norm}.beta"] = (hidden,)
        shapes[f"{block}.feed_forward.inner.weight"] = (hidden, inner)
        shapes[f"{block}.feed_forward.inner.bias"] = (inner,)
        shapes[f"{block}.feed_forward.output.weight"] = (inner, hidden)
        shapes[f"{block}.feed_forward.output.bias"] = (hidden,)
    return shapes
