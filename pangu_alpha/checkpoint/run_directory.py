"""Run directories: finding the checkpoint a user means, and keeping two trainings out of one directory."""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.checkpoint.format import MANIFEST, DamagedCheckpointError, Manifest, step_of
from pangu_alpha.checkpoint.load import Checkpoint, is_inference_tensor, list_checkpoints, newest_good_checkpoint
from pangu_alpha.directory_lock import DirectoryLock
from pangu_alpha.errors import PanguError
from pangu_alpha.files import storage_error

logger = logging.getLogger(__name__)

RUNS = Path("runs")
"""Where runs lie unless `train.output` says otherwise, relative to the working directory."""

_HOW_TO_TRAIN = "train a model first: ./run_train.sh"


@dataclass(frozen=True)
class RunDirectory:
    """The places in a run's directory that others than the trainer read."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Directory of checkpoints, one a step."""
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """Copy of the vocabulary that the run was trained with."""
        return self.path / "tokenizer" / "vocab.model"

    @property
    def lock(self) -> Path:
        """File that the writing process holds locked."""
        return self.path / "lock"


def newest_run(runs: Path = RUNS) -> RunDirectory | None:
    """The run below `runs` whose newest complete checkpoint was written last; None if no run has one."""
    newest: tuple[float, Path] | None = None
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        for directory in list_checkpoints(RunDirectory(path).checkpoints):
            try:
                created = Manifest.read(directory / MANIFEST).created
            except DamagedCheckpointError:
                continue
            if newest is None or created > newest[0]:
                newest = (created, path)
            break
    return RunDirectory(newest[1]) if newest else None


def find_checkpoint(
    directory: str | Path | None = None, runs: Path = RUNS, wanted: Callable[[str], bool] = is_inference_tensor
) -> Checkpoint:
    """The checkpoint that a user means, its `wanted` tensors verified.

    Args:
        directory: a run directory, its directory of checkpoints, one checkpoint, a file in one, or a directory of
            runs; None means `runs`.
        runs: where runs lie.
        wanted: which tensors, by name, must be good.

    Raises:
        PanguError: nothing is there; one line that says what to do.
    """
    if directory is None:
        run = newest_run(runs)
        if run is None:
            raise PanguError(f"no trained model below {runs}/; {_HOW_TO_TRAIN}, or name one with --checkpoint DIR")
        return _newest(run.checkpoints, wanted)
    path = Path(directory)
    if not path.exists():
        raise PanguError(f"{path}: no such directory{_nearest(path, runs)}")
    if path.is_file():
        path = path.parent
    if (path / MANIFEST).exists():
        checkpoint = Checkpoint(path)
        checkpoint.verify(wanted)
        return checkpoint
    if step_of(path.name) is not None:
        raise DamagedCheckpointError(f"{path} has no {MANIFEST}: the checkpoint was never completed; take another one")
    for place in (path / "checkpoints", path):
        if list_checkpoints(place):
            return _newest(place, wanted)
    if (path / "checkpoints").is_dir():
        raise PanguError(
            f"{path} holds no complete checkpoint yet; its training writes one every train.checkpoint_every steps"
        )
    inner = newest_run(path)
    if inner is not None:
        return _newest(inner.checkpoints, wanted)
    raise PanguError(
        f"{path} is neither a run (no checkpoints/ in it) nor a checkpoint (no {MANIFEST} in it){_nearest(path, runs)}"
    )


def find_tokenizer(checkpoint: Checkpoint) -> Path:
    """The vocabulary file of a checkpoint: in its own directory, or in its run's.

    Raises:
        PanguError: there is none, or it is not the one that the model was trained with.
    """
    directory = checkpoint.directory.absolute()
    places = [directory / "tokenizer" / "vocab.model", RunDirectory(directory.parent.parent).tokenizer]
    for place in places:
        if not place.is_file():
            continue
        try:
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
        except OSError as error:
            raise storage_error(error, place, "read") from None
        if digest != checkpoint.manifest.tokenizer_sha256:
            raise PanguError(
                f"{place}: SHA-256 {digest[:12]}… is not that of the vocabulary that {checkpoint.directory} was "
                f"trained with ({checkpoint.manifest.tokenizer_sha256[:12]}…); put the right file there"
            )
        return place
    raise PanguError(
        f"{checkpoint.directory}: its vocabulary is missing; put vocab.model at {places[0]} or {places[1]}"
    )


def _newest(checkpoints: Path, wanted: Callable[[str], bool]) -> Checkpoint:
    checkpoint, _ = newest_good_checkpoint(checkpoints, wanted)
    if checkpoint is None:
        raise PanguError(f"{checkpoints} holds no complete checkpoint; {_HOW_TO_TRAIN}")
    return checkpoint


def _nearest(path: Path, runs: Path) -> str:
    """What to type instead: runs of a similar name, else how to get one."""
    if not runs.is_dir():
        return f"; {_HOW_TO_TRAIN}"
    known = {item.name: item for item in sorted(runs.iterdir()) if list_checkpoints(RunDirectory(item).checkpoints)}
    near = difflib.get_close_matches(path.name, list(known), 3, 0.4) or list(known)[:3]
    return f"; trained models here: {', '.join(str(known[name]) for name in near)}" if near else f"; {_HOW_TO_TRAIN}"


class RunLock(DirectoryLock):
    """The right to write one run directory; what a killed predecessor left half-written goes when it is taken."""

    def __init__(self, run: Path) -> None:
        self.directory = RunDirectory(run)
        super().__init__(self.directory.lock, "or give this run another train.output")

    def __enter__(self) -> RunLock:
        """Take the lock; PanguError if another training has it or the directory cannot be written."""
        super().__enter__()
        _clear_leftovers(self.directory.checkpoints)
        return self


_LEFTOVER = re.compile(r"\.(step_\d+)\..*\.partial(\.old)?")


def _clear_leftovers(checkpoints: Path) -> None:
    """Remove half-written checkpoints of killed processes; a complete one that had stepped aside comes back."""
    for path in list(checkpoints.iterdir()) if checkpoints.is_dir() else ():
        match = _LEFTOVER.fullmatch(path.name)
        if match and match[2] and not (checkpoints / match[1]).exists():
            path.replace(checkpoints / match[1])
        elif match:
            shutil.rmtree(path, ignore_errors=True)
        elif step_of(path.name) is not None and not (path / MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)  # its removal was interrupted
