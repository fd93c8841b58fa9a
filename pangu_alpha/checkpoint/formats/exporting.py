"""From a checkpoint of this program, of any layout, to a form that others read; a tensor in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.formats.hugging_face_export import write_hugging_face
from pangu_alpha.checkpoint.formats.mindspore_ckpt import write_checkpoint
from pangu_alpha.checkpoint.formats.mindspore_export import write_rank_folders
from pangu_alpha.checkpoint.formats.model_card import model_card
from pangu_alpha.checkpoint.formats.names.official import OFFICIAL
from pangu_alpha.checkpoint.formats.names.official_pipeline import OFFICIAL_PIPELINE
from pangu_alpha.checkpoint.formats.names.table import NameTable
from pangu_alpha.checkpoint.formats.tensors import StoredTensor
from pangu_alpha.checkpoint.load import Checkpoint, saved_config
from pangu_alpha.checkpoint.run_directory import find_tokenizer
from pangu_alpha.config import Config
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.progress import Progress

_RANK_FOLDERS = {"mindspore": "ckpt", "mindspore_safetensors": "safetensors"}
"""Forms of MindSpore's own training, and the type of their files."""


@dataclass(frozen=True)
class Exported:
    """What an export has written."""

    form: str
    directory: Path
    parameters: int
    """Numbers in all tensors."""
    bytes: int
    """Of the tensors."""


def export_checkpoint(
    source: Checkpoint,
    destination: Path,
    form: str,
    precision: str = "stored",
    vocabulary: Path | None = None,
    layout: Layout | None = None,
) -> Exported:
    """Write the weights of a checkpoint into the new directory `destination`, with a model card.

    Args:
        source: of any layout; moments and counters are left out.
        destination: appears whole or not at all.
        form: hugging_face, ckpt, numpy, mindspore or mindspore_safetensors.
        precision: of the weights: float32, float16, or stored: as they are.
        vocabulary: sentencepiece model of the ids; None takes the checkpoint's own.
        layout: of the ranks whose folders mindspore and mindspore_safetensors are; they have the moments, too.

    Raises:
        PanguError: the destination is there, the model has no query layer, a tensor is damaged or leaves float16's
            range, no space.
    """
    if destination.exists():
        raise PanguError(f"{destination} is there already; give another --to DIR, or remove it")
    config = saved_config(source)
    if not config.model.query_layer:
        raise PanguError(
            f"{source.directory}: model.query_layer is false; the forms of PanGu-α have no place for a model without "
            "query layer (its tensors can be read from the safetensors files as they are)"
        )
    vocabulary = vocabulary or find_tokenizer(source)
    card = model_card(source, config, form)
    if form in _RANK_FOLDERS:
        if precision != "stored":
            raise PanguError(f"--format {form} keeps types as stored; `checkpoint convert --precision` changes them")
        return _rank_folders(source, destination, form, vocabulary, card, config, layout or Layout())
    with Progress("exporting", len(config_names(config)), "tensors") as progress:
        tensors = _weights(source, config, precision, progress.advance)
        with atomic_directory(destination) as partial:
            if form == "hugging_face":
                write_hugging_face(partial, tensors, config, vocabulary)
            else:
                named = by_release_names(tensors, config)
                if form == "ckpt":
                    write_checkpoint(partial / f"{config.name}.ckpt", named)
                else:
                    for name, tensor in named.items():
                        np.save(partial / f"{name}.npy", np.asarray(tensor))
                (partial / "vocab.model").write_bytes(vocabulary.read_bytes())
            (partial / "README.md").write_text(card, encoding="utf-8")
    sizes = [(tensor.size, tensor.nbytes) for tensor in tensors.values()]
    return Exported(form, destination, sum(size for size, _ in sizes), sum(count for _, count in sizes))


def _rank_folders(
    source: Checkpoint, destination: Path, form: str, vocabulary: Path, card: str, config: Config, layout: Layout
) -> Exported:
    source.verify()
    names = release_table(config).names(config.model.num_layers)
    with atomic_directory(destination) as partial, Progress("exporting", layout.devices, "ranks") as progress:
        size = write_rank_folders(partial, source, names, config, layout, _RANK_FOLDERS[form], progress.advance)
        (partial / "vocab.model").write_bytes(vocabulary.read_bytes())
        (partial / "README.md").write_text(card, encoding="utf-8")
    count = sum(math.prod(source.entries[name].shape) for name in names)
    return Exported(form, destination, count, size)


def release_table(config: Config) -> NameTable:
    """The names of the original release: 2.6B and 13B, or those of 200B's code with the norm after the query layer."""
    return OFFICIAL if config.model.final_norm == "before_query" else OFFICIAL_PIPELINE


def config_names(config: Config) -> list[str]:
    """Our names of the model's tensors."""
    return list(OFFICIAL.names(config.model.num_layers))


def by_release_names(tensors: Mapping[str, StoredTensor], config: Config) -> dict[str, StoredTensor]:
    """The tensors under the names of the original release, which keeps each the way round that we do."""
    names = release_table(config).names(config.model.num_layers)
    return {names[ours]: tensor for ours, tensor in tensors.items()}


def _weights(
    source: Checkpoint, config: Config, precision: str, advance: Callable[[], None]
) -> dict[str, StoredTensor]:
    """The model's tensors, each read (and held against its checksums) when it is wanted."""
    found = {}
    for name in config_names(config):
        if name not in source.entries:
            raise PanguError(f"{source.directory}: tensor {name} is missing; it is no checkpoint of a PanGu-α")
        entry = source.entries[name]
        kind = np.dtype(entry.dtype if precision == "stored" else precision)
        found[name] = StoredTensor(
            str(source.directory / entry.file), entry.shape, kind, _reader(source, name, kind, advance)
        )
    return found


def _reader(source: Checkpoint, name: str, kind: np.dtype, advance: Callable[[], None]) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        ((_, values),) = source.tensors([name])
        with np.errstate(over="ignore"):  # looked at below
            result = values.astype(kind, copy=False)
        if kind == np.float16 and not np.isfinite(result).all() and np.isfinite(values).all():
            raise PanguError(f"{source.directory}: tensor {name} exceeds the range of float16; keep float32")
        advance()
        return result

    return read
