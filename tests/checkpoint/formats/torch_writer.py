"""Files as `torch.save` writes them, without PyTorch: the zip archive since 1.6, and the plain form before it."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import numpy as np

PROTOCOL = 2
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "uint8": "ByteStorage"}


class Tensor:
    """Values, and how they lie: `transposed` keeps the values of the transpose, as a view in PyTorch does."""

    def __init__(self, values: np.ndarray, transposed: bool = False, bfloat16: bool = False) -> None:
        self.values, self.transposed, self.bfloat16 = values, transposed, bfloat16


class Storage:
    def __init__(self, name: str, content: bytes, count: int, key: str) -> None:
        self.name, self.content, self.count, self.key = name, content, count, key


def pretended_modules() -> dict[str, types.ModuleType]:
    torch, utilities = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in (*STORAGES.values(), "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))

    def rebuild(*arguments):
        raise AssertionError("only named, never called here")

    rebuild.__module__, rebuild.__name__, rebuild.__qualname__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    utilities._rebuild_tensor_v2 = rebuild
    torch._utils = utilities
    return {"torch": torch, "torch._utils": utilities}


class Pickler(pickle.Pickler):
    def __init__(self, file, storages: list[Storage], view_metadata: bool) -> None:
        super().__init__(file, PROTOCOL)
        self.storages, self.view_metadata = storages, view_metadata

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        kind = getattr(sys.modules["torch"], value.name)
        identity = ("storage", kind, value.key, "cpu", value.count)
        return (*identity, None) if self.view_metadata else identity

    def reducer_override(self, value):
        if not isinstance(value, Tensor):
            return NotImplemented
        array = np.ascontiguousarray(value.values)
        name = "BFloat16Storage" if value.bfloat16 else STORAGES[array.dtype.name]
        content = (array.view(np.uint32) >> 16).astype(np.uint16).tobytes() if value.bfloat16 else array.tobytes()
        storage = Storage(name, content, array.size, str(len(self.storages)))
        self.storages.append(storage)
        shape = array.shape
        strides = tuple(step // array.itemsize for step in array.strides)
        if value.transposed:
            shape, strides = shape[::-1], strides[::-1]
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (storage, 0, shape, strides, False, OrderedDict())


def dumps(value, storages: list[Storage], view_metadata: bool = False) -> bytes:
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, pretended_modules()):
        Pickler(file, storages, view_metadata).dump(value)
    return file.getvalue()


def save(content, path: Path, plain: bool = False) -> None:
    """`content`: dictionaries of `Tensor`."""
    storages: list[Storage] = []
    text = dumps(content, storages, view_metadata=plain)
    if not plain:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(f"{path.stem}/data.pkl", text)
            archive.writestr(f"{path.stem}/byteorder", "little")
            for storage in storages:
                archive.writestr(f"{path.stem}/data/{storage.key}", storage.content)
            archive.writestr(f"{path.stem}/version", "3\n")
        return
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with path.open("wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, system):
            file.write(pickle.dumps(head, PROTOCOL))
        file.write(text)
        file.write(pickle.dumps([storage.key for storage in storages], PROTOCOL))
        for storage in storages:
            file.write(struct.pack("<q", storage.count) + storage.content)
