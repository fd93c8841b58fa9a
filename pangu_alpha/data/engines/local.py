"""Processes of one machine: a unit of work is one record batch, and what it makes appears whole or not at all.

Units and their names depend on the input alone, so a run that was killed goes on with the units that are missing, and
any number of processes makes the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from pangu_alpha.data.worker_count import worker_count
from pangu_alpha.data.worker_pool import WorkerPool
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory
from pangu_alpha.progress import Progress

Work = Callable[[Any, Any, Path], None]
"""(what all units share, the unit's own, the directory to fill); a function of a module."""


class Unit(NamedTuple):
    """One record batch's work."""

    name: str
    """Path of what it makes, below the stage's folder; names sort as the input lies."""
    size: int
    """For progress."""
    payload: Any
    """What the work is called with; None where the unit is done already, so that nothing need be kept."""


def is_done(folder: Path, name: str) -> bool:
    """Whether a unit's result is there."""
    return (folder / name).is_dir()


class LocalEngine:
    """Processes of this machine, as a context manager; they are started when there is work for several."""

    def __init__(self, workers: int = 0) -> None:
        """With `workers` processes; 0: one a core; 1: none but this one."""
        self.processes = worker_count(workers)
        self._pool: WorkerPool | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, trace)

    def run(self, units: Iterable[Unit], work: Work, shared: Any, folder: Path, progress: Progress) -> None:
        """Do the work of all units whose results are not there yet.

        Args:
            units: drawn one by one, never more than twice as many in hand as there are processes.
            work: what makes a unit's result.
            shared: what all units share; small, since it goes to a process with each unit.
            folder: of the stage.
            progress: advances by the size of each unit.

        Raises:
            PanguError: a unit failed, or a process ended early.
        """
        if self.processes == 1:
            for unit in units:
                if not is_done(folder, unit.name):
                    _do(work, shared, folder / unit.name, unit.payload)
                progress.advance(unit.size)
            return
        pending: dict[Future[None], int] = {}
        try:
            for unit in units:
                if is_done(folder, unit.name):
                    progress.advance(unit.size)
                    continue
                while len(pending) >= 2 * self.processes:
                    _collect(pending, progress)
                pending[self._submit(work, shared, folder / unit.name, unit.payload)] = unit.size
            while pending:
                _collect(pending, progress)
        except BrokenProcessPool as error:
            raise PanguError(
                "a process ended early, perhaps for lack of memory; try fewer with workers=1, or a smaller batch_bytes"
            ) from error

    def _submit(self, *arguments: Any) -> Future[None]:
        if self._pool is None:
            self._pool = WorkerPool(self.processes)
        return self._pool.submit(_do, *arguments)


def _collect(pending: dict[Future[None], int], progress: Progress) -> None:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        progress.advance(pending.pop(future))
        future.result()


def _do(work: Work, shared: Any, path: Path, payload: Any) -> None:
    with atomic_directory(path, replace=False) as partial:
        work(shared, payload, partial)


def unit_directories(folder: Path) -> Iterator[Path]:
    """Results of a stage, in the order of their names."""
    for group in sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")):
        yield from sorted(item for item in group.iterdir() if item.is_dir() and not item.name.startswith("."))
