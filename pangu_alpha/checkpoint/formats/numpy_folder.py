"""A folder with one .npy file a parameter, named by it (official SDK, `ms_2_numpy.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.formats.names.table import NameTable
from pangu_alpha.checkpoint.formats.tensors import ForeignWeights, StoredTensor
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory, storage_error


def numpy_folder(path: Path, tables: Sequence[NameTable]) -> ForeignWeights:
    """The folder `path`; a file's name without .npy is that of its parameter."""
    tensors = {item.name.removesuffix(".npy"): read_array(item) for item in sorted(path.glob("*.npy"))}
    return ForeignWeights("folder of .npy files", path, tensors, tables)


def read_array(path: Path) -> StoredTensor:
    """A .npy file, not yet read; never one of Python objects.

    Raises:
        PanguError: the file cannot be read, is cut short, or holds no numbers.
    """
    array = _mapped(path)
    return StoredTensor(str(path), array.shape, array.dtype.newbyteorder("="), lambda: np.array(_mapped(path)))


def _mapped(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, TypeError) as error:
        raise PanguError(f"{path}: no whole .npy file of numbers ({error}); get it again") from None
    except OSError as error:
        raise storage_error(error, path, "read") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise PanguError(f"{path}: no .npy file of numbers; get it again")
    return array


def write_numpy_folder(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write one .npy a tensor, one in memory at a time; the folder appears whole or not at all."""
    with atomic_directory(path) as partial:
        for name, tensor in tensors.items():
            np.save(partial / f"{name}.npy", np.asarray(tensor))
