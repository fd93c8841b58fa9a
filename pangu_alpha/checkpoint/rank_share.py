"""All ranks of a cluster write one checkpoint together: each its own parts, in a place that all of them see.

    checkpoints/.step_00000200.<attempt>.parts/      where the others leave what they wrote for the first rank
        rank_0017.safetensors
        rank_0017.json                               that the file is whole, and what is in it

The first rank waits for all, moves their files into the checkpoint's directory, writes the manifest and gives the
directory its name.  It is the file system that they meet on, not a communication of the devices, so that training goes
on meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.format import FileEntry, TensorEntry, rank_file, step_name, tensor_entry
from pangu_alpha.checkpoint.ownership import OwnedPart, owned_parts, ranks_of
from pangu_alpha.checkpoint.tensor_file import StoredPart, write_tensors
from pangu_alpha.config import ModelConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write, storage_error
from pangu_alpha.parallel.layout import Layout

_POLL_SECONDS = 0.2


def describe_layout(layout: Layout) -> dict[str, Any]:
    """A layout as the manifest tells it: how many ranks, and how their files are cut."""
    if layout.devices == 1:
        return {"ranks": 1}
    names = ("data_parallel", "model_parallel", "pipeline_stages", "optimizer_shards", "split_vocabulary")
    return {"ranks": layout.devices, **{name: getattr(layout, name) for name in names}}


@dataclass(frozen=True)
class RankShare:
    """What one rank adds to the checkpoints of its run."""

    rank: int
    """This one."""
    layout: Layout
    """Of all ranks."""
    parts: Mapping[str, list[OwnedPart]] = field(repr=False)
    """Of every tensor, who keeps which part."""
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    """Of every whole tensor."""
    attempt: str = "0"
    """What all ranks of this start of the run have in common, and an earlier, broken off one has not."""
    patience: float = 1800.0
    """Seconds that the first rank waits for the others' files."""

    @staticmethod
    def of(
        rank: int, layout: Layout, model: ModelConfig, shapes: Mapping[str, tuple[int, ...]], attempt: str
    ) -> RankShare:
        """The share of `rank` in tensors of whole `shapes`."""
        parts = {name: owned_parts(name, shape, model, layout) for name, shape in shapes.items()}
        return RankShare(rank, layout, parts, shapes, attempt)

    def names(self) -> list[str]:
        """Tensors of which this rank keeps a part."""
        return [name for name, own in self.parts.items() if any(part.rank == self.rank for part in own)]

    def stored(self, arrays: Mapping[str, np.ndarray]) -> dict[str, StoredPart]:
        """What this rank's file holds.

        Args:
            arrays: of all that `names` lists: whole, or the part that the rank has in memory.

        Raises:
            PanguError: the array is neither the whole nor the rank's part of the tensor.
        """
        result = {}
        for name in self.names():
            shape = self.shapes[name]
            cut = next(part.slice for part in self.parts[name] if part.rank == self.rank)
            own = tuple(stop - start for start, stop in cut)
            values = arrays[name]
            if values.shape == shape != own:
                values = values[tuple(slice(*border) for border in cut)]
            if values.shape != own and {values.shape, own} != {(), (1,)}:
                raise PanguError(
                    f"rank {self.rank} has {list(values.shape)} of {name}, and its part under the layout "
                    f"({self.layout}) is {list(own)}"
                )
            result[name] = StoredPart(values.reshape(own), shape, cut)
        return result

    def hand_over(self, checkpoints: Path, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """What every rank but the first does: write its file where the first one finds it.

        Args:
            checkpoints: the run's directory of checkpoints, the same for all ranks.
            step: optimizer steps done.
            arrays: as for `stored`; not changed meanwhile.

        Raises:
            PanguError: no space, read-only, no permission; the first rank is told.
        """
        stored = self.stored(arrays)
        if not stored:
            return
        place = self._place(checkpoints, step)
        name = rank_file(self.rank)
        try:
            place.mkdir(parents=True, exist_ok=True)
            unfinished = place / f"{name}.partial"
            file, tensors = write_tensors(unfinished, stored)
            _synchronise(unfinished)
            unfinished.replace(place / name)
        except OSError as error:
            failure = storage_error(error, checkpoints / step_name(step) / name)
            with contextlib.suppress(OSError, PanguError), atomic_write(self._note(place), "w") as note:
                json.dump({"failed": str(failure)}, note)
            raise failure from error
        file = dataclasses.replace(file, name=name)
        entries = [dataclasses.asdict(dataclasses.replace(entry, file=name)) for entry in tensors]
        with atomic_write(self._note(place), "w") as note:
            json.dump({"file": dataclasses.asdict(file), "tensors": entries}, note)

    def collect(
        self, checkpoints: Path, step: int, partial: Path
    ) -> tuple[tuple[FileEntry, ...], tuple[TensorEntry, ...]]:
        """What the first rank does: wait for the others' files and move them into the directory to be.

        Args:
            checkpoints: the run's directory of checkpoints.
            step: optimizer steps done.
            partial: the directory of the checkpoint, not yet under its name.

        Returns:
            What the manifest says of the others' files and tensors, in order of rank.

        Raises:
            PanguError: a rank could not write, or none came in time.
        """
        place = self._place(checkpoints, step)
        files: list[FileEntry] = []
        tensors: list[TensorEntry] = []
        deadline = time.monotonic() + self.patience
        for rank in ranks_of(self.parts):
            if rank == self.rank:
                continue
            note = self._note(place, rank)
            while not note.exists():
                if time.monotonic() > deadline:
                    raise PanguError(
                        f"{checkpoints / step_name(step)}: rank {rank} has not written its part in "
                        f"{self.patience:.0f} s; is {checkpoints} the same directory on all nodes?"
                    )
                time.sleep(_POLL_SECONDS)
            told = json.loads(note.read_text(encoding="utf-8"))
            if "failed" in told:
                raise PanguError(f"rank {rank}: {told['failed']}")
            files.append(FileEntry(**told["file"]))
            tensors += [tensor_entry(entry) for entry in told["tensors"]]
            (place / rank_file(rank)).replace(partial / rank_file(rank))
        shutil.rmtree(place, ignore_errors=True)
        return tuple(files), tuple(tensors)

    def remove_leftovers(self, checkpoints: Path) -> None:
        """Remove what ranks of an earlier, broken off start left for their first one."""
        if checkpoints.is_dir():
            for place in checkpoints.glob(".step_*.parts"):
                if not place.name.endswith(f".{self.attempt}.parts"):
                    shutil.rmtree(place, ignore_errors=True)

    def _place(self, checkpoints: Path, step: int) -> Path:
        return checkpoints / f".{step_name(step)}.{self.attempt}.parts"

    def _note(self, place: Path, rank: int | None = None) -> Path:
        return place / Path(rank_file(self.rank if rank is None else rank)).with_suffix(".json")


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
