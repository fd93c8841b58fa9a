"""MindSpore's .ckpt: a Protocol Buffers message of (tag, dims, type, content), large tensors in several pieces.

`mindspore.load_checkpoint` reads and parses a whole file into memory; here the file is walked for the places of its
tensors, and each is read when it is wanted.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from pangu_alpha.checkpoint.formats import protobuf
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

TYPES: dict[str, np.dtype | str] = {
    "Int8": np.dtype(np.int8),
    "UInt8": np.dtype(np.uint8),
    "Int16": np.dtype(np.int16),
    "UInt16": np.dtype(np.uint16),
    "Int32": np.dtype(np.int32),
    "UInt32": np.dtype(np.uint32),
    "Int64": np.dtype(np.int64),
    "UInt64": np.dtype(np.uint64),
    "Float16": np.dtype(np.float16),
    "Float32": np.dtype(np.float32),
    "Float64": np.dtype(np.float64),
    "Bool": np.dtype(np.bool_),
    "BFloat16": BFLOAT16,
}
"""MindSpore's names of types (`serialization.py`)."""
_CHECKSUM_MARK = b"crc_num"
_CHECKSUM_LENGTH = 17
_PIECE = 512 * 2**20
"""Bytes of a tensor in one piece, as MindSpore cuts them: the message that wraps a piece must stay below 2 GiB."""


@dataclass(frozen=True)
class _Piece:
    tag: str
    dims: tuple[int, ...]
    kind: str
    offset: int
    length: int


def read_checkpoint(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a .ckpt file by name, not yet read.

    Raises:
        PanguError: the file cannot be read, is cut short, encrypted, or no checkpoint.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size == 0:
                raise PanguError(f"{path}: the file is empty; get it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                end = size
                if size > _CHECKSUM_LENGTH and view[size - 17 : size - 10] == _CHECKSUM_MARK:
                    end -= _CHECKSUM_LENGTH
                pieces = _walk(path, view, end)
    except OSError as error:
        raise storage_error(error, path, "read") from None
    tensors: dict[str, StoredTensor] = {}
    by_tag: dict[str, list[_Piece]] = {}
    for piece in pieces:
        by_tag.setdefault(piece.tag, []).append(piece)
    for tag, parts in by_tag.items():
        if parts[0].kind == "str":
            continue  # a note of the writer
        tensors[tag] = _tensor(path, tag, parts)
    return tensors


def _walk(path: Path, view: mmap.mmap, end: int) -> list[_Piece]:
    pieces: list[_Piece] = []
    try:
        for number, start, stop in protobuf.fields(view, 0, end):
            if number != 1 or stop < 0:
                raise protobuf.NotProtobufError
            pieces.append(_piece(view, start, stop))
    except protobuf.CutShortError:
        after = f" after tensor {pieces[-1].tag}" if pieces else ""
        raise PanguError(f"{path}: the file is cut short{after}, or no MindSpore checkpoint; get it again") from None
    except (protobuf.NotProtobufError, UnicodeDecodeError):
        raise PanguError(f"{path}: no MindSpore checkpoint, or an encrypted or damaged one") from None
    if not pieces:
        raise PanguError(f"{path}: the checkpoint holds no tensor")
    return pieces


def _piece(view: mmap.mmap, start: int, stop: int) -> _Piece:
    tag, kind, content = "", "", (0, 0)
    dims: list[tuple[int, int]] = []
    for number, first, second in protobuf.fields(view, start, stop):
        if number == 1:
            tag = view[first:second].decode()
        elif number == 2:
            for inner, a, b in protobuf.fields(view, first, second):
                if inner == 1:
                    dims.append((a, b))
                elif inner == 2:
                    kind = view[a:b].decode()
                elif inner == 3:
                    content = (a, b - a)
        else:
            raise protobuf.NotProtobufError
    return _Piece(tag, tuple(protobuf.integers(view, dims)), kind, *content)


def _tensor(path: Path, tag: str, parts: list[_Piece]) -> StoredTensor:
    kind, dims = parts[0].kind, parts[0].dims
    if kind not in TYPES:
        raise PanguError(f"{path}: tensor {tag} has type {kind!r}; known: {', '.join(TYPES)}")
    stored = TYPES[kind]
    found = sum(part.length for part in parts)
    shape = () if dims == (0,) else dims  # MindSpore writes a scalar so
    needed = int(np.prod(shape, dtype=np.int64)) * stored_size(stored)
    if found != needed:
        raise PanguError(
            f"{path}: tensor {tag} {list(shape)} has {found} bytes of {needed}: the file is damaged; get it again"
        )
    places = [(part.offset, part.length) for part in parts]
    return StoredTensor(
        str(path), shape, result_type(stored), lambda: decode(read_bytes(path, places), stored).reshape(shape)
    )


def write_checkpoint(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a .ckpt that `mindspore.load_checkpoint` reads, one tensor in memory at a time, whole or not at all."""
    kinds = {dtype: kind for kind, dtype in TYPES.items() if not isinstance(dtype, str)}
    with atomic_write(path) as file:
        for name, tensor in tensors.items():
            _write_tensor(file, name, np.asarray(tensor), kinds[tensor.dtype])


def _write_tensor(file: IO[bytes], name: str, values: np.ndarray, kind: str) -> None:
    dims = b"".join(protobuf.encode_varint(1 << 3) + protobuf.encode_varint(size) for size in values.shape or (0,))
    content = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        head = dims + protobuf.encode_field(2, kind.encode()) + protobuf.encode_varint(3 << 3 | 2)
        head += protobuf.encode_varint(len(piece))
        tag = protobuf.encode_field(1, name.encode())
        tensor_head = protobuf.encode_varint(2 << 3 | 2) + protobuf.encode_varint(len(head) + len(piece))
        length = len(tag) + len(tensor_head) + len(head) + len(piece)
        file.write(protobuf.encode_varint(1 << 3 | 2) + protobuf.encode_varint(length) + tag + tensor_head + head)
        file.write(piece)
