"""Writing a rank's file: the safetensors form, with a checksum of every tensor and of the file taken on the way."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pangu_alpha.checkpoint.checksum import Checksum, checksum_of
from pangu_alpha.checkpoint.format import FileEntry, TensorEntry
from pangu_alpha.errors import PanguError

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


class StoredPart(NamedTuple):
    """A tensor, or the part of it that goes into a file."""

    values: np.ndarray
    """Float or int; of the part's shape."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    slice: tuple[tuple[int, int], ...]
    """[start, stop) along each axis of the whole tensor."""


def whole(values: np.ndarray) -> StoredPart:
    """A tensor that a file holds all of."""
    return StoredPart(values, values.shape, tuple((0, size) for size in values.shape))


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


def write_tensors(path: Path, parts: Mapping[str, StoredPart]) -> tuple[FileEntry, tuple[TensorEntry, ...]]:
    """Write a file in the safetensors form: length of the header, header, values.

    Written here rather than by the library, whose writer would need a second read of everything for the checksums.

    Args:
        path: the file; who calls sees to it that it takes its name when it is whole.
        parts: by tensor name; their values must not change during the call.

    Returns:
        What a manifest says of the file and of its tensors, in their order in it.

    Raises:
        PanguError: a type that the form does not have.
        OSError: no space, read-only, no permission.
    """
    beginning, places = tensors_header(
        {name: (part.values.dtype.name, part.values.shape) for name, part in parts.items()}
    )
    of_file = Checksum()
    found: dict[str, Future[str]] = {}
    # Taken while the file is written; neither a checksum nor writing needs Python's lock.
    with path.open("wb") as file, ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        file.write(beginning)
        one.submit(of_file.update, beginning)
        for name in places:
            values = _little_endian(parts[name].values).reshape(-1).view(np.uint8).data
            one.submit(of_file.update, values)
            found[name] = other.submit(checksum_of, values)
            for start in range(0, len(values), _CHUNK):
                file.write(values[start : start + _CHUNK])
        size = file.tell()
    entries = tuple(
        TensorEntry(name, path.name, part.shape, part.values.dtype.name, part.slice, found[name].result())
        for name, part in ((name, parts[name]) for name in places)
    )
    return FileEntry(path.name, size, str(of_file)), entries


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The array, rows one after the other, in the byte order of the format."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
