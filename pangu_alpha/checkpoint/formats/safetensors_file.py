"""Safetensors files, one or several of a model, read tensor by tensor; bfloat16 too, which NumPy lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.formats.tensors import (
    BFLOAT16,
    StoredTensor,
    decode,
    read_bytes,
    result_type,
    stored_size,
)
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write, storage_error

_TYPES: dict[str, np.dtype | str] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_LONGEST_HEADER = 100 * 2**20


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, not yet read.

    Raises:
        PanguError: the file cannot be read, is cut short or damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_LONGEST_HEADER, size - 8):
                raise PanguError(f"{path}: no safetensors file, or cut short; get it again")
            header = json.loads(file.read(length))
    except OSError as error:
        raise storage_error(error, path, "read") from None
    except ValueError:
        raise PanguError(f"{path}: no safetensors file, or a damaged one; get it again") from None
    tensors: dict[str, StoredTensor] = {}
    try:
        for name, entry in header.items():
            if name != "__metadata__":
                tensors[name] = _tensor(path, name, entry, 8 + length, size)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise PanguError(f"{path}: the header of this safetensors file is damaged; get it again") from None
    return tensors


def _tensor(path: Path, name: str, entry: Mapping, base: int, size: int) -> StoredTensor:
    kind, shape = entry["dtype"], tuple(map(int, entry["shape"]))
    if kind not in _TYPES:
        raise PanguError(f"{path}: tensor {name} has type {kind}; known: {', '.join(_TYPES)}")
    stored = _TYPES[kind]
    start, stop = entry["data_offsets"]
    if stop - start != math.prod(shape) * stored_size(stored) or start < 0:
        raise PanguError(f"{path}: tensor {name} has not the bytes of its shape {list(shape)}: the file is damaged")
    if base + stop > size:
        raise PanguError(f"{path}: cut short: tensor {name} ends at byte {base + stop} of {size}; get it again")
    place = (base + start, stop - start)
    return StoredTensor(
        str(path), shape, result_type(stored), lambda: decode(read_bytes(path, [place]), stored).reshape(shape)
    )


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a file that PyTorch's loaders read, one tensor in memory at a time, whole or not at all."""
    kinds = {dtype: kind for kind, dtype in _TYPES.items() if not isinstance(dtype, str)}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            values = np.asarray(tensor)
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
            file.write(values.data)
