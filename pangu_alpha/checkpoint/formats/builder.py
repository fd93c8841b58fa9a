"""A checkpoint of one rank filled piece by piece, in any order, with a piece in memory at a time."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.format import MANIFEST, FileEntry, Manifest, TensorEntry, canonical_sha256, rank_file
from pangu_alpha.checkpoint.save import library_versions, tensors_header
from pangu_alpha.config import Config, to_dict
from pangu_alpha.errors import PanguError

_BLOCK = 1 << 22


class CheckpointBuilder:
    """Fills `rank_0000.safetensors` of a directory that nobody reads yet."""

    def __init__(self, folder: Path, kinds: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Lay the file out for tensors of some types and shapes; the disk's space is taken at once."""
        self.folder, self.kinds = folder, dict(kinds)
        beginning, self._places = tensors_header(self.kinds)
        self._path = folder / rank_file(0)
        sizes = [math.prod(shape) * np.dtype(kind).itemsize for kind, shape in self.kinds.values()]
        with self._path.open("wb") as file:
            file.write(beginning)
            file.truncate(len(beginning) + sum(sizes))
        self._filled = dict.fromkeys(self.kinds, 0)

    def put(self, name: str, values: np.ndarray, cut: tuple[slice, ...] | None = None) -> None:
        """Set a whole tensor, or the part `cut` of it.

        Raises:
            PanguError: the shape is not that of the part.
        """
        kind, shape = self.kinds[name]
        target = np.memmap(self._path, kind, "r+", self._places[name], shape if shape else (1,))
        part = target[cut] if cut is not None else target.reshape(shape)
        if part.shape != values.shape:
            raise PanguError(f"tensor {name} has shape {list(values.shape)} where {list(part.shape)} is expected")
        part[...] = values
        target.flush()
        self._filled[name] += values.size

    def finish(self, config: Config, tokenizer_sha256: str, origin: str) -> None:
        """Hash everything and write the manifest.

        Args:
            config: the model's.
            tokenizer_sha256: of its vocabulary.
            origin: what the weights were made from.

        Raises:
            PanguError: a tensor was not filled.
        """
        for name, (_, shape) in self.kinds.items():
            if self._filled[name] != math.prod(shape):
                raise PanguError(
                    f"{origin}: of tensor {name} only {self._filled[name]} of {math.prod(shape)} values came"
                )
        entries = []
        for name in self._places:
            kind, shape = self.kinds[name]
            size = math.prod(shape) * np.dtype(kind).itemsize
            digest = _digest(self._path, self._places[name], size)
            whole = tuple((0, length) for length in shape)
            entries.append(TensorEntry(name, rank_file(0), shape, kind, whole, digest))
        values = to_dict(config)
        manifest = Manifest(
            step=0,
            created=time.time(),
            layout={"ranks": 1},
            files=(FileEntry(rank_file(0), self._path.stat().st_size, _digest(self._path, 0, None)),),
            tensors=tuple(entries),
            config=values,
            config_sha256=canonical_sha256(values),
            tokenizer_sha256=tokenizer_sha256,
            train_state={"imported_from": origin},
            versions=library_versions(),
        )
        (self.folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _digest(path: Path, start: int, size: int | None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        left = size
        while left is None or left:
            block = file.read(_BLOCK if left is None else min(_BLOCK, left))
            if not block:
                break
            digest.update(block)
            left = None if left is None else left - len(block)
    return digest.hexdigest()
