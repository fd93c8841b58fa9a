"""The wire form of Protocol Buffers, as far as MindSpore's files need it, over a memory map or bytes.

MindSpore's own reader parses a whole file into memory first; here a tensor's values are only located.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap


class CutShortError(ValueError):
    """A field reaches beyond the end of the buffer."""


class NotProtobufError(ValueError):
    """The bytes are no Protocol Buffers."""


def varint(buffer: Buffer, place: int, end: int) -> tuple[int, int]:
    """An integer of variable length at `place`, and where the next field begins."""
    result = shift = 0
    while True:
        if place >= end:
            raise CutShortError
        byte = buffer[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, place
        shift += 7
        if shift > 63:
            raise NotProtobufError


def fields(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, a, b) for each field: a and b are its bounds, or a is its value and b -1 for an integer."""
    place = start
    while place < end:
        key, place = varint(buffer, place, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise NotProtobufError
        if kind == 0:
            value, place = varint(buffer, place, end)
            yield number, value, -1
        elif kind == 2:
            length, place = varint(buffer, place, end)
            if place + length > end:
                raise CutShortError
            yield number, place, place + length
            place += length
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            if place + length > end:
                raise CutShortError
            yield number, place, place + length
            place += length
        else:
            raise NotProtobufError


def integers(buffer: Buffer, entries: list[tuple[int, int]]) -> list[int]:
    """The values of a repeated integer field from its (a, b), packed or not, with sign."""
    result = []
    for first, second in entries:
        if second < 0:
            result.append(first)
            continue
        place = first
        while place < second:
            value, place = varint(buffer, place, second)
            result.append(value)
    return [value - (1 << 64) if value >= 1 << 63 else value for value in result]


def encode_varint(value: int) -> bytes:
    """A non-negative integer in the form of variable length."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def encode_field(number: int, content: bytes) -> bytes:
    """A field of bytes, a text or a message."""
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content
