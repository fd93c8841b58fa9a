"""Reading checkpoints: the newest good one found by itself, every byte checked before it is used."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pangu_alpha.checkpoint.checksum import has_checksum
from pangu_alpha.checkpoint.format import MANIFEST, DamagedCheckpointError, Manifest, TensorEntry, step_of
from pangu_alpha.config import Config, to_dict
from pangu_alpha.errors import PanguError

logger = logging.getLogger(__name__)

MAPPED_BYTES = 256 << 20
"""Bytes read before a checkpoint's files are opened anew."""
OPTIMIZER_PREFIXES = ("adam_m.", "adam_v.")
"""Names of the optimizer's moments begin with these, followed by the parameter's own name."""


class Checkpoint:
    """One checkpoint directory, opened: its manifest is read and its files are there at their full size."""

    def __init__(self, directory: str | Path) -> None:
        """Open `directory`; DamagedCheckpointError names what is missing or cut short."""
        self.directory = Path(directory)
        self.manifest = Manifest.read(self.directory / MANIFEST)
        self.parts: dict[str, list[TensorEntry]] = {}
        for entry in self.manifest.tensors:
            self.parts.setdefault(entry.name, []).append(entry)
        self.entries: dict[str, TensorEntry] = {name: parts[0] for name, parts in self.parts.items()}
        self._verified: set[tuple[str, str]] = set()
        for name, parts in self.parts.items():
            _require_whole(self.directory, name, parts)
        for file in self.manifest.files:
            path = self.directory / file.name
            try:
                size = path.stat().st_size
            except OSError as error:
                raise DamagedCheckpointError(f"{path} is missing or unreadable: {error.strerror}") from None
            if size != file.bytes:
                raise DamagedCheckpointError(
                    f"{path} has {size} bytes; {file.bytes} were written: it was cut or changed"
                )

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.manifest.step

    @property
    def train_state(self) -> Mapping[str, Any]:
        """What the trainer gave `save_checkpoint`."""
        return self.manifest.train_state

    def tensors(self, names: list[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (name, whole array) one by one, in the files' order; what is not yet verified is, before it is yielded.

        A tensor whose parts lie in the files of several ranks is put together.

        Args:
            names: tensors wanted; None gives all.

        Raises:
            DamagedCheckpointError: names the file and the tensor.
        """
        wanted = set(self.parts if names is None else names)
        with _Files(self) as files:
            for name, parts in self.parts.items():
                if name not in wanted:
                    continue
                whole = None
                for entry in parts:
                    array = files.read(entry)
                    if len(parts) == 1:
                        whole = array
                    else:
                        whole = np.empty(entry.shape, array.dtype) if whole is None else whole
                        whole[tuple(slice(start, stop) for start, stop in entry.slice)] = array
                assert whole is not None
                yield name, whole

    def part(self, name: str, wanted: tuple[slice, ...]) -> np.ndarray:
        """Some rows, columns … of a tensor, read without the rest of it and without a checksum.

        For a rank of a cluster, whose share of the checksums is another (`newest_good_checkpoint`).

        Args:
            name: of the tensor.
            wanted: a slice with bounds for each axis of the whole tensor.

        Raises:
            DamagedCheckpointError: the file cannot be read.
        """
        result: np.ndarray | None = None
        for entry in self.parts[name]:
            overlap = [
                slice(max(want.start, start), min(want.stop, stop))
                for want, (start, stop) in zip(wanted, entry.slice, strict=True)
            ]
            if any(axis.start >= axis.stop for axis in overlap):
                continue
            inside = tuple(
                slice(axis.start - start, axis.stop - start)
                for axis, (start, _) in zip(overlap, entry.slice, strict=True)
            )
            path = self.directory / entry.file
            with self._open(path) as handle:
                try:
                    read = handle.get_slice(name)[inside]
                except (SafetensorError, OSError, ValueError, TypeError) as error:
                    raise DamagedCheckpointError(f"{path} is damaged: tensor {name} cannot be read ({error})") from None
            if result is None:
                result = np.empty([axis.stop - axis.start for axis in wanted], read.dtype)
            place = tuple(
                slice(axis.start - want.start, axis.stop - want.start)
                for axis, want in zip(overlap, wanted, strict=True)
            )
            result[place] = read
        assert result is not None, f"no part of {name} lies in {wanted}"
        return result

    def verify(self, wanted: Callable[[str], bool] = lambda name: True, turn: int = 0, turns: int = 1) -> None:
        """Read every tensor whose name is `wanted` and compare its bytes with the checksum written beside them.

        Args:
            wanted: which tensors, by name.
            turn: of `turns` that divide the work, the one to take: on a cluster a rank's.
            turns: how many there are.

        Raises:
            DamagedCheckpointError: names the file and the tensor.
        """
        entries = [entry for name, parts in self.parts.items() if wanted(name) for entry in parts]
        with _Files(self) as files:
            for entry in sorted(entries[turn::turns], key=lambda entry: entry.file):
                files.read(entry)

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        try:
            handle = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise DamagedCheckpointError(f"{path} is damaged: no readable header ({error})") from None
        with handle:
            yield handle

    def _read(self, path: Path, handle: Any, entry: TensorEntry) -> np.ndarray:
        try:
            array: np.ndarray = handle.get_tensor(entry.name)
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise DamagedCheckpointError(f"{path} is damaged: tensor {entry.name} cannot be read ({error})") from None
        if array.shape != entry.stored_shape or array.dtype.name != entry.dtype:
            raise DamagedCheckpointError(
                f"{path} is damaged: tensor {entry.name} is {array.dtype.name} {list(array.shape)}; "
                f"{entry.dtype} {list(entry.stored_shape)} was written"
            )
        if (entry.file, entry.name) not in self._verified:
            if not has_checksum(array.reshape(-1).view(np.uint8).data, entry.checksum):
                raise DamagedCheckpointError(f"{path} is damaged: tensor {entry.name} differs from its checksum")
            self._verified.add((entry.file, entry.name))
        return array

    def check_shapes(self, expected: Mapping[str, tuple[int, ...]], config: Config, exact: bool = True) -> None:
        """Compare names and shapes with what a model, or a training run, of `config` holds.

        Args:
            expected: shape of each tensor by name.
            config: the configuration that `expected` was built from; the message names its key that differs.
            exact: whether a tensor that nobody expects is an error too.

        Raises:
            PanguError: one line that names the tensor, both shapes and the key that probably differs.
        """
        found = {name: entry.shape for name, entry in self.entries.items()}
        for name, shape in expected.items():
            # A counter is kept as a number or as a row of one: both hold the same.
            if (
                name in found
                and tuple(found[name]) != tuple(shape)
                and {tuple(found[name]), tuple(shape)} != {(), (1,)}
            ):
                raise PanguError(
                    f"{self.directory}: tensor {name} has shape {list(found[name])} there and {list(shape)} here"
                    f"{self._differing_keys(config)}"
                )
        missing = [name for name in expected if name not in found]
        if missing:
            raise PanguError(
                f"{self.directory}: tensor {_some(missing)} of shape {list(expected[missing[0]])} is needed and "
                f"missing there{self._differing_keys(config)}"
            )
        extra = [name for name in found if name not in expected] if exact else []
        if extra:
            raise PanguError(
                f"{self.directory}: tensor {_some(extra)} of shape {list(found[extra[0]])} is there and has no place "
                f"here{self._differing_keys(config)}"
            )

    def _differing_keys(self, config: Config) -> str:
        """Which settings of the saved and the present configuration differ, those of the model first."""
        ours, theirs = to_dict(config), self.manifest.config
        differing = [
            f"{section}.{key} is {theirs[section][key]} there and {value} here"
            for section in ("model", "train", "optimizer", "loss_scale")
            for key, value in ours[section].items()
            if theirs.get(section, {}).get(key, value) != value
        ]
        return f"; {differing[0]}" if differing else "; no key of the two configurations explains it"


class _Files:
    """Files of a checkpoint that are being read: opened when wanted, and anew after some bytes.

    They are mapped into memory, and what was touched of a mapped file stays with the process as long as it is open.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self._stack = checkpoint, contextlib.ExitStack()
        self._opened: dict[str, Any] = {}
        self._bytes = 0

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, entry: TensorEntry) -> np.ndarray:
        """What a file holds of a tensor, held against its checksum."""
        if self._bytes > MAPPED_BYTES:
            self._stack.close()
            self._opened, self._bytes = {}, 0
        path = self.checkpoint.directory / entry.file
        if entry.file not in self._opened:
            self._opened[entry.file] = self._stack.enter_context(self.checkpoint._open(path))
        array = self.checkpoint._read(path, self._opened[entry.file], entry)
        self._bytes += array.nbytes
        return array


def _require_whole(directory: Path, name: str, parts: list[TensorEntry]) -> None:
    """Check that the parts of a tensor agree and cover it."""
    first = parts[0]
    if any((part.shape, part.dtype) != (first.shape, first.dtype) for part in parts):
        raise DamagedCheckpointError(f"{directory}: parts of tensor {name} disagree on its shape or type")
    covered = sum(math.prod(part.stored_shape) for part in parts)
    if covered != math.prod(first.shape) or len({part.slice for part in parts}) < len(parts):
        raise DamagedCheckpointError(
            f"{directory}: {len(parts)} parts of tensor {name} do not make up its shape {list(first.shape)}"
        )


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def is_inference_tensor(name: str) -> bool:
    """Whether a tensor is needed to run the model, and not only to go on training it."""
    return not name.startswith(OPTIMIZER_PREFIXES)


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Complete checkpoints in a run's directory of checkpoints, the newest (highest step) first."""
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if step_of(path.name) is not None and (path / MANIFEST).exists()]
    return sorted(found, key=lambda path: step_of(path.name) or 0, reverse=True)


def newest_good_checkpoint(
    checkpoints: Path,
    wanted: Callable[[str], bool] = lambda name: True,
    turn: int = 0,
    turns: int = 1,
    any_rank: Callable[[bool], bool] = bool,
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose `wanted` tensors all match their checksums, read in full to know.

    Args:
        checkpoints: the run's directory of checkpoints.
        wanted: which tensors, by name.
        turn: on a cluster this rank, which reads its share alone.
        turns: how many ranks there are.
        any_rank: whether something is so on any of them; all ask at once.

    Returns:
        The checkpoint, None where there is none at all; and one line for each newer one that is damaged (also logged).

    Raises:
        PanguError: there are checkpoints and every one is damaged.
    """
    damages: list[str] = []
    for directory in list_checkpoints(checkpoints):
        damage, checkpoint = "", None
        try:
            checkpoint = Checkpoint(directory)
            checkpoint.verify(wanted, turn, turns)
        except DamagedCheckpointError as error:
            damage = str(error)
        if not any_rank(bool(damage)):
            return checkpoint, damages
        damages.append(damage or f"{directory} is damaged, as another rank found")
        logger.warning("%s; the checkpoint before it is tried", damages[-1])
    if damages:
        raise PanguError(f"{checkpoints}: no good checkpoint is left; {'; '.join(damages)}")
    return None, []


def saved_config(checkpoint: Checkpoint) -> Config:
    """The configuration that a checkpoint was written with.

    Settings that this version does not know are left out with a log line; ones that the checkpoint does not know
    have their defaults.
    """
    return _from_dict(Config, checkpoint.manifest.config, str(checkpoint.directory / MANIFEST), "")


def _from_dict(section: Any, values: Mapping[str, Any], path: str, prefix: str) -> Any:
    known = section.__dataclass_fields__
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            logger.warning("%s: setting %s%s is unknown to this version and left out", path, prefix, key)
            continue
        if isinstance(value, Mapping):
            value = _from_dict(known[key].default_factory, value, path, f"{prefix}{key}.")
        arguments[key] = tuple(value) if isinstance(value, list) else value
    return section(**arguments)
