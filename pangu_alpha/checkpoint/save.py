"""Writing a checkpoint: beside its place, checksums taken on the way, flushed, renamed; then the oldest ones go."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.format import (
    MANIFEST,
    FileEntry,
    Manifest,
    TensorEntry,
    canonical_sha256,
    rank_file,
    step_name,
    step_of,
)
from pangu_alpha.checkpoint.rank_share import RankShare, describe_layout
from pangu_alpha.checkpoint.tensor_file import whole, write_tensors
from pangu_alpha.config import Config, to_dict
from pangu_alpha.files import atomic_directory


def save_checkpoint(
    checkpoints: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    train_state: Mapping[str, Any],
    config: Config,
    tokenizer_sha256: str,
    keep: int = 0,
    pinned: Collection[int] = (),
    share: RankShare | None = None,
) -> Path:
    """Write `checkpoints/step_…`, whole or not at all, and remove all but the newest `keep`.

    When it returns, files and directories are flushed to the disk.  Only one process may write to a run directory at
    a time (`run_directory.RunLock`).

    Args:
        checkpoints: the run's directory of checkpoints; made if missing.
        step: optimizer steps done; an earlier checkpoint of the same step is replaced.
        arrays: every tensor by name, float or int, or with a share those that it names; their values must not change
            during the call.
        train_state: plain JSON values that the trainer wants back.
        config: the run's configuration.
        tokenizer_sha256: of the vocabulary file.
        keep: newest checkpoints kept, this one among them; 0 keeps all.
        pinned: steps whose checkpoints are kept whatever their age.
        share: of the first rank, where several write together: the others call its `hand_over`.

    Returns:
        The checkpoint's directory.

    Raises:
        PanguError: no space, read-only, no permission, or another rank that failed; nothing is left behind and no older
            checkpoint is touched.
    """
    directory = checkpoints / step_name(step)
    with atomic_directory(directory) as partial:
        stored = share.stored(arrays) if share else {name: whole(array) for name, array in arrays.items()}
        file, tensors = write_tensors(partial / rank_file(0), stored)
        others: tuple[tuple[FileEntry, ...], tuple[TensorEntry, ...]] = ((), ())
        if share:
            others = share.collect(checkpoints, step, partial)
        config_values = to_dict(config)
        manifest = Manifest(
            step=step,
            created=time.time(),
            layout=describe_layout(share.layout) if share else {"ranks": 1},
            files=(file, *others[0]),
            tensors=(*tensors, *others[1]),
            config=config_values,
            config_sha256=canonical_sha256(config_values),
            tokenizer_sha256=tokenizer_sha256,
            train_state=dict(train_state),
            versions=library_versions(),
        )
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8", errors="backslashreplace")
    if keep:
        remove_older(checkpoints, keep, pinned)
    return directory


def remove_older(checkpoints: Path, keep: int, pinned: Collection[int] = ()) -> list[Path]:
    """Remove all complete checkpoints but the `keep` of the highest steps and the pinned; gives back what went."""
    complete = [path for path in checkpoints.iterdir() if step_of(path.name) is not None]
    complete.sort(key=lambda path: step_of(path.name) or 0)
    removed = [path for path in complete[: max(0, len(complete) - keep)] if step_of(path.name) not in pinned]
    for path in removed:
        # The manifest first: a directory that is half removed when the machine stops is then no checkpoint.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    return removed


def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that a checkpoint's numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in ("pangu-alpha", "mindspore", "numpy", "safetensors", "jieba", "sentencepiece"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
