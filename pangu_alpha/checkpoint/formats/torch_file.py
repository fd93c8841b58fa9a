"""PyTorch's .pt, .pth and .bin files, read without PyTorch and without running what a pickle says.

A pickle may name any function of Python and have it called.  This reader knows the few names that a file of tensors
needs, gives its own harmless ones for them, and refuses every other.  Both forms are read: the zip archive of PyTorch
1.6 and later, and the plain file before it.
"""

from __future__ import annotations

import collections
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

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
from pangu_alpha.files import storage_error

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES: dict[str, np.dtype | str] = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": BFLOAT16,
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class _Settings:
    """Stands for argparse.Namespace, which Megatron keeps its command line in: nothing of it is used."""


class _Storage:
    """Where the values of one or more tensors lie in the file."""

    def __init__(self, stored: np.dtype | str, count: int) -> None:
        self.stored, self.count, self.offset = stored, count, -1


class _StorageType:
    def __init__(self, stored: np.dtype | str) -> None:
        self.stored = stored


class _Tensor:
    def __init__(self, storage: _Storage, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.storage, self.start, self.shape, self.strides = storage, start, shape, strides


def _rebuild_tensor(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    fits = start >= 0 and min((*shape, *strides), default=0) >= 0
    if not isinstance(storage, _Storage) or not fits or (0 not in shape and last >= storage.count):
        raise pickle.UnpicklingError("a tensor reaches beyond its values")
    return _Tensor(storage, int(start), shape, strides)


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("argparse", "Namespace"): _Settings,
    **{("torch", name): _StorageType(stored) for name, stored in _STORAGES.items()},
}


class _ForbiddenName(pickle.UnpicklingError):
    """A pickle names what no file of tensors needs."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], storages: dict[str, _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Ours for a known name; nothing is ever imported."""
        if (module, name) not in _KNOWN:
            raise _ForbiddenName(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, identity: Any) -> _Storage:
        """A storage, by its key in the file."""
        kind, storage_type, key, _, count = identity[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType) or (len(identity) > 5 and identity[5]):
            raise pickle.UnpicklingError("an unknown kind of storage")
        return self.storages.setdefault(str(key), _Storage(storage_type.stored, int(count)))


def read_torch_file(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, not yet read; dictionaries inside dictionaries give names joined by dots.

    Raises:
        PanguError: the file cannot be read, is damaged, or its pickle wants more than tensors.
    """
    try:
        with path.open("rb") as file:
            archive = zipfile.is_zipfile(file)
            file.seek(0)
            content = _read_archive(path, file) if archive else _read_plain(path, file)
    except _ForbiddenName as error:
        raise PanguError(
            f"{path}: its pickle asks for {error}, which no file of weights needs; it was not run. Save the weights "
            "alone (torch.save(model.state_dict(), FILE)), or as safetensors"
        ) from None
    except OSError as error:
        raise storage_error(error, path, "read") from None
    except PanguError:
        raise
    except Exception as error:  # whatever a damaged pickle makes Python's reader raise
        raise PanguError(f"{path}: no whole PyTorch file ({type(error).__name__}: {error}); get it again") from None
    tensors: dict[str, StoredTensor] = {}
    _flatten(path, content, "", tensors)
    return tensors


def _read_archive(path: Path, file: IO[bytes]) -> Any:
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise PanguError(f"{path}: a zip archive, but none of PyTorch (no data.pkl in it); unpack it first")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise PanguError(f"{path}: written on a big-endian machine; save it again on a usual one")
        with archive.open(pickles[0]) as data:
            content = _Unpickler(data, storages).load()
        for key, storage in storages.items():
            info = members.get(f"{folder}data/{key}")
            needed = storage.count * stored_size(storage.stored)
            if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < needed:
                raise PanguError(f"{path}: the values {key} are missing or cut short in it; get it again")
            file.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
            storage.offset = info.header_offset + 30 + name + extra
    return content


def _read_plain(path: Path, file: IO[bytes]) -> Any:
    storages: dict[str, _Storage] = {}

    def load() -> Any:
        return _Unpickler(file, storages).load()

    if load() != _MAGIC:
        raise PanguError(f"{path}: no file of PyTorch; get it again")
    load()  # the version of the form
    if load().get("little_endian") is False:
        raise PanguError(f"{path}: written on a big-endian machine; save it again on a usual one")
    content = load()
    size = path.stat().st_size
    for key in load():
        storage = storages.get(str(key))
        head = file.read(8)
        if len(head) < 8:
            raise PanguError(f"{path}: cut short; get it again")
        count = struct.unpack("<q", head)[0]
        if storage is None or count != storage.count:
            raise PanguError(f"{path}: the values {key} do not fit the tensors that use them: it is damaged")
        storage.offset = file.tell()
        end = storage.offset + count * stored_size(storage.stored)
        if end > size:
            raise PanguError(f"{path}: cut short: {end} bytes or more are needed, it has {size}; get it again")
        file.seek(end)
    return content


def _flatten(path: Path, content: Any, prefix: str, tensors: dict[str, StoredTensor]) -> None:
    if isinstance(content, _Tensor):
        tensors[prefix.removesuffix(".")] = _stored(path, content)
    elif isinstance(content, Mapping):
        for key, value in content.items():
            _flatten(path, value, f"{prefix}{key}.", tensors)


def _stored(path: Path, tensor: _Tensor) -> StoredTensor:
    storage = tensor.storage
    return StoredTensor(str(path), tensor.shape, result_type(storage.stored), _reader(path, tensor))


def _reader(path: Path, tensor: _Tensor) -> Callable[[], np.ndarray]:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, result_type(storage.stored))
        last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        width = stored_size(storage.stored)
        values = decode(read_bytes(path, [(storage.offset + tensor.start * width, (last + 1) * width)]), storage.stored)
        steps = [stride * values.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(values, shape, steps)
        return np.ascontiguousarray(view)

    return read
