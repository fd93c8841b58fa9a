"""What the dynamic linker reads of a shared library: the libraries it needs, the symbols it gives and those it wants.

A reader of its own, because not every machine has binutils, and because numpy reads a table of symbols at once where
pyelftools makes an object of each (0.05 s against 0.3 s for one library of MindSpore's; a plug-in has dozens).  Source:
the System V ABI, chapters 4 and 5; 64-bit little-endian files only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.errors import PanguError

_SECTION = np.dtype(
    [
        ("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"), ("size", "<u8"),
        ("link", "<u4"), ("info", "<u4"), ("alignment", "<u8"), ("entry_size", "<u8"),
    ]
)  # fmt: skip
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_DYNAMIC, _DYNAMIC_SYMBOLS, _NEEDED = 6, 11, 1
_GLOBAL, _WEAK, _UNIQUE = 1, 2, 10
_UNDEFINED = 0
_DATA = 1


@dataclass(frozen=True)
class SharedLibrary:
    """One library's face: sonames it `needed`, symbols it `defined`, and symbols it must find elsewhere (`wanted`).

    Weak symbols that are not defined may stay so and are not `wanted`; `wanted_data` is the part of `wanted` that is
    known to be variables.  Versions of symbols are left out.
    """

    needed: tuple[str, ...]
    defined: frozenset[str]
    wanted: frozenset[str]
    wanted_data: frozenset[str]


def read_shared_library(path: Path) -> SharedLibrary:
    """Read one library.

    Raises:
        PanguError: the file is no 64-bit little-endian ELF library, or ends too early.
    """
    try:
        return _read(path)
    except (ValueError, IndexError, struct.error) as error:
        raise PanguError(f"{path} is no 64-bit Linux library ({error}); install MindSpore again") from error


def _read(path: Path) -> SharedLibrary:
    file = np.memmap(path, dtype=np.uint8, mode="r")
    header = file[:64].tobytes()
    if header[:6] != b"\x7fELF\x02\x01":
        raise ValueError("its first bytes are others")
    (start,) = struct.unpack_from("<Q", header, 40)
    (count,) = struct.unpack_from("<H", header, 60)
    sections = _table(file, start, count * _SECTION.itemsize, _SECTION)
    needed: list[str] = []
    defined: set[str] = set()
    wanted: set[str] = set()
    data: set[str] = set()
    for section in sections[np.isin(sections["type"], (_DYNAMIC, _DYNAMIC_SYMBOLS))]:
        names = sections[section["link"]]
        text = file[int(names["offset"]) : int(names["offset"]) + int(names["size"])].tobytes()
        if section["type"] == _DYNAMIC:
            entries = _table(file, section["offset"], section["size"], np.dtype([("tag", "<i8"), ("value", "<u8")]))
            needed += [_text(text, value) for value in entries["value"][entries["tag"] == _NEEDED]]
            continue
        symbols = _table(file, section["offset"], section["size"], _SYMBOL)
        binding, kind = symbols["info"] >> 4, symbols["info"] & 15
        outside = symbols["section"] == _UNDEFINED
        visible = np.isin(binding, (_GLOBAL, _WEAK, _UNIQUE))
        defined.update(_text(text, name) for name in symbols["name"][visible & ~outside])
        strong = outside & (binding == _GLOBAL)
        wanted.update(_text(text, name) for name in symbols["name"][strong])
        data.update(_text(text, name) for name in symbols["name"][strong & (kind == _DATA)])
    return SharedLibrary(tuple(needed), frozenset(defined), frozenset(wanted), frozenset(data))


def _table(file: np.ndarray, offset: int, size: int, kind: np.dtype) -> np.ndarray:
    part = file[int(offset) : int(offset) + int(size)]
    if len(part) < int(size):
        raise ValueError("it ends too early")
    return part.view(kind)


def _text(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()
