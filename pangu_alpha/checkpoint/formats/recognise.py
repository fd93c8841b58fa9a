"""Which form a file or folder of weights has, found by looking."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pangu_alpha.checkpoint.format import MANIFEST
from pangu_alpha.checkpoint.formats import hugging_face, megatron, official
from pangu_alpha.checkpoint.formats.numpy_folder import numpy_folder
from pangu_alpha.checkpoint.formats.safetensors_file import read_safetensors
from pangu_alpha.checkpoint.formats.tensors import ForeignWeights
from pangu_alpha.checkpoint.formats.torch_file import read_torch_file
from pangu_alpha.errors import PanguError

_KNOWN = (
    "slices filerted_*.ckpt with their strategy file, a merged .ckpt, a folder of .npy files, a .pt of the Megatron "
    "port, or a gpt_pangu folder of Hugging Face"
)
_VOCABULARIES = ("vocab.model", "spiece.model", "tokenizer.model", "tokenizer/vocab.model")


def open_weights(path: Path, strategy: Path | None = None) -> ForeignWeights:
    """The weights at `path`, indexed and not yet read.

    Args:
        path: a file or a folder.
        strategy: the strategy file of slices, where it does not lie with them.

    Raises:
        PanguError: nothing known is there, or it is damaged: one line.
    """
    if not path.exists():
        raise PanguError(f"{path}: no such file or folder; give {_KNOWN}")
    weights = _open_file(path) if path.is_file() else _open_folder(path, strategy)
    folder = path if path.is_dir() else path.parent
    found = [folder / name for name in _VOCABULARIES if (folder / name).is_file()]
    return dataclasses.replace(weights, vocabulary=found[0] if found else None)


def _open_file(path: Path) -> ForeignWeights:
    if path.suffix == ".ckpt":
        if official.is_strategy_name(path):
            raise PanguError(f"{path}: a strategy file; name the folder with the slices that it belongs to")
        return official.merged(path)
    if path.suffix == ".safetensors":
        return hugging_face.single_file(path, read_safetensors(path))
    if path.suffix in (".pt", ".pth", ".bin"):
        tensors = read_torch_file(path)
        is_megatron = megatron.is_megatron(tensors)
        return megatron.megatron(path, tensors) if is_megatron else hugging_face.single_file(path, tensors)
    if path.suffix in (".zip", ".tar", ".gz"):
        raise PanguError(f"{path}: an archive; unpack it, and name the folder")
    raise PanguError(f"{path}: no known form of weights; give {_KNOWN}")


def _open_folder(path: Path, strategy: Path | None) -> ForeignWeights:
    if (path / MANIFEST).is_file():
        raise PanguError(f"{path}: a checkpoint of this program already; nothing is to be imported")
    if hugging_face.is_hugging_face(path):
        return hugging_face.hugging_face(path)
    port = megatron.find_file(path)
    if port is not None:
        return megatron.megatron(port)
    arrays = list(path.glob("*.npy"))
    files = [item for item in path.rglob("*.ckpt") if item.is_file() and not official.is_strategy_name(item)]
    if not files and arrays:
        return numpy_folder(path, official.MINDSPORE_TABLES)
    if len(files) == 1 and strategy is None and not any(path.rglob("*strategy*")):
        return official.merged(files[0])
    if files:
        return official.slices(path, strategy)
    others = sorted(item for suffix in ("pt", "pth", "bin", "safetensors") for item in path.glob(f"*.{suffix}"))
    if len(others) == 1:
        return _open_file(others[0])
    raise PanguError(f"{path}: no weights in it; give {_KNOWN}")
