"""Writing a checkpoint: beside its place, hashed on the way, flushed, renamed; then the oldest ones go."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from pangu_alpha.checkpoint.format import (
    MANIFEST,
    FileEntry,
    Manifest,
    TensorEntry,
    canonical_sha256,
    rank_file,
    step_name,
    step_of,
)
from pangu_alpha.config import Config, to_dict
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory

_SAFETENSORS_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_CHUNK = 1 << 22
"""Bytes written at a time."""


def save_checkpoint(
    checkpoints: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    train_state: Mapping[str, Any],
    config: Config,
    tokenizer_sha256: str,
    keep: int = 0,
    pinned: Collection[int] = (),
) -> Path:
    """Write `checkpoints/step_…`, whole or not at all, and remove all but the newest `keep`.

    When it returns, files and directories are flushed to the disk.  Only one process may write to a run directory at
    a time (`run_directory.RunLock`).

    Args:
        checkpoints: the run's directory of checkpoints; made if missing.
        step: optimizer steps done; an earlier checkpoint of the same step is replaced.
        arrays: every tensor by name, float or int; their values must not change during the call.
        train_state: plain JSON values that the trainer wants back.
        config: the run's configuration.
        tokenizer_sha256: of the vocabulary file.
        keep: newest checkpoints kept, this one among them; 0 keeps all.
        pinned: steps whose checkpoints are kept whatever their age.

    Returns:
        The checkpoint's directory.

    Raises:
        PanguError: no space, read-only, no permission; nothing is left behind and no older checkpoint is touched.
    """
    directory = checkpoints / step_name(step)
    with atomic_directory(directory) as partial:
        name = rank_file(0)
        with (partial / name).open("wb") as file:
            digest, tensors = _write_tensors(file, name, arrays)
            size = file.tell()
        config_values = to_dict(config)
        manifest = Manifest(
            step=step,
            created=time.time(),
            layout={"ranks": 1},
            files=(FileEntry(name, size, digest),),
            tensors=tensors,
            config=config_values,
            config_sha256=canonical_sha256(config_values),
            tokenizer_sha256=tokenizer_sha256,
            train_state=dict(train_state),
            versions=library_versions(),
        )
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    if keep:
        remove_older(checkpoints, keep, pinned)
    return directory


def remove_older(checkpoints: Path, keep: int, pinned: Collection[int] = ()) -> list[Path]:
    """Remove all complete checkpoints but the `keep` of the highest steps and the pinned; gives back what went."""
    complete = [path for path in checkpoints.iterdir() if step_of(path.name) is not None]
    complete.sort(key=lambda path: step_of(path.name) or 0)
    removed = [path for path in complete[: max(0, len(complete) - keep)] if step_of(path.name) not in pinned]
    for path in removed:
        # The manifest first: a directory that is half removed when the machine stops is then no checkpoint.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    return removed


def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that a checkpoint's numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in ("pangu-alpha", "mindspore", "numpy", "safetensors", "jieba", "sentencepiece"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def tensors_header(kinds: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, dict[str, int]]:
    """The beginning of a safetensors file, and where each tensor's values stand in the file, in the order of the file.

    Args:
        kinds: NumPy's name of the type, and the shape, of each tensor.

    Raises:
        PanguError: a type that the form does not have.
    """

    def size(name: str) -> int:
        return int(np.dtype(kinds[name][0]).itemsize)

    for name, (kind, _) in kinds.items():
        if kind not in _SAFETENSORS_TYPES:
            raise PanguError(f"tensor {name} has type {kind}; allowed: {', '.join(_SAFETENSORS_TYPES)}")
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    offset, places = 0, {}
    for name in sorted(kinds, key=lambda name: (-size(name), name)):  # so that values are aligned
        kind, shape = kinds[name]
        end = offset + math.prod(shape) * size(name)
        header[name] = {"dtype": _SAFETENSORS_TYPES[kind], "shape": list(shape), "data_offsets": [offset, end]}
        places[name], offset = offset, end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    beginning = len(text).to_bytes(8, "little") + text
    return beginning, {name: len(beginning) + place for name, place in places.items()}


def _write_tensors(
    file: IO[bytes], file_name: str, arrays: Mapping[str, np.ndarray]
) -> tuple[str, tuple[TensorEntry, ...]]:
    """Write the safetensors form: length of the header, header, values.  Gives back the file's hash and the entries.

    Written here rather than by the library, whose writer would need a second read of everything for the hashes.
    """
    beginning, places = tensors_header({name: (array.dtype.name, array.shape) for name, array in arrays.items()})
    file_hash = hashlib.sha256()
    file.write(beginning)
    digests: dict[str, Future[str]] = {}
    # Both hashes are taken while the file is written; neither hashing nor writing needs Python's lock.
    with ThreadPoolExecutor(1) as of_file, ThreadPoolExecutor(1) as of_tensors:
        of_file.submit(file_hash.update, beginning)
        for name in places:
            values = _little_endian(arrays[name]).reshape(-1).view(np.uint8).data
            of_file.submit(file_hash.update, values)
            digests[name] = of_tensors.submit(_hex_digest, values)
            for start in range(0, len(values), _CHUNK):
                file.write(values[start : start + _CHUNK])
    entries = tuple(
        TensorEntry(
            name, file_name, arrays[name].shape, arrays[name].dtype.name,
            tuple((0, size) for size in arrays[name].shape), digests[name].result(),
        )
        for name in places
    )  # fmt: skip
    return file_hash.hexdigest(), entries


def _hex_digest(values: memoryview) -> str:
    return hashlib.sha256(values).hexdigest()


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The array, rows one after the other, in the byte order of the format."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
