"""Compile chosen ranks of a run and read what their graphs tell; see `report` for how it is shown."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config import Config
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.parallel.stages import stages_of_layers
from pangu_alpha.progress import Progress
from pangu_alpha.rehearsal.compile import CompiledRank, CompileRequest, check_rank, compile_ranks
from pangu_alpha.rehearsal.graph import RankReadOut, read_rank
from pangu_alpha.rehearsal.program import ACCUMULATION, TRAINING_STEP

logger = logging.getLogger(__name__)

RANK_WORDS = ("first", "middle", "last", "stages", "all")
"""Words for ranks: the first, the middle and the last one; the first of each pipeline stage; all."""


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run.

    Attributes:
        config: the run.
        layout: its layout.
        target: ascend or gpu.
        mindspore: version of the compiler.
        layer_stages: the pipeline stage of each layer.
        ranks: what was read, by rank.
    """

    config: Config
    layout: Layout
    target: str
    mindspore: str
    layer_stages: tuple[int, ...]
    ranks: tuple[RankReadOut, ...]

    @property
    def in_order(self) -> bool:
        """Whether no rank redistributes unplanned, leaves an operator without strategy, or exceeds its device."""
        return all(not rank.unplanned and not rank.without_strategy and rank.memory.fits for rank in self.ranks)


def choose_ranks(text: str, layout: Layout) -> list[int]:
    """Ranks that a list such as `first,middle,last` or `0,1024` names, in rising order, each once.

    Raises:
        UsageError: a word that is neither a number nor one of RANK_WORDS, or a rank that the run has not.
    """
    ranks: set[int] = set()
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word.isdecimal() or word.removeprefix("-").isdecimal():
            check_rank(int(word), layout.devices)
            ranks.add(int(word))
        elif word in RANK_WORDS:
            ranks.update(_named(word, layout))
        else:
            raise UsageError(f"--ranks: {word!r} is no rank; allowed: numbers and {', '.join(RANK_WORDS)}")
    if not ranks:
        raise UsageError(f"--ranks names no rank; allowed: numbers and {', '.join(RANK_WORDS)}")
    return sorted(ranks)


def dry_run(
    config: Config,
    ranks: Sequence[int],
    target: str,
    at_once: int = 1,
    keep: Path | None = None,
    program: str = TRAINING_STEP,
) -> DryRun:
    """Compile `ranks` of a run and read their graphs.

    Args:
        config: the run.
        ranks: which ones.
        target: ascend or gpu.
        at_once: processes at a time; each takes a core and, of a 200B run, more than 2 GiB.
        keep: directory for graphs and logs, one folder a rank; None keeps them only where a rank does not compile.
        program: see `compile.CompileRequest`.

    Raises:
        UsageError: the layout does not fit the model, or there is no such rank or target.
        PanguError: a rank does not compile.
    """
    layout = layout_of(config)
    for rank in ranks:
        check_rank(rank, layout.devices)
    what = f"rank {ranks[0]}" if len(ranks) == 1 else f"{len(ranks)} ranks"
    logger.info("compiling %s of %d for %s, each in a process of its own", what, layout.devices, target)
    programs = {"step": program}
    if program == TRAINING_STEP and layout.micro_batches > 1 and not layout.in_pipeline:
        programs["accumulation"] = ACCUMULATION
    graphs = len(ranks) * len(programs)
    with _working_directory(keep) as folder, Progress("compiling", graphs, "graphs") as progress:
        requests = [
            CompileRequest(config, rank, target, folder / f"rank_{rank:04d}" / name, program=source)
            for rank in ranks
            for name, source in programs.items()
        ]

        def done(compiled: CompiledRank) -> None:
            logger.info(
                "rank %d: %s compiled in %.0f s with %.1f GiB",
                compiled.rank,
                compiled.folder.name,
                compiled.seconds,
                compiled.peak_bytes / 2**30,
            )
            progress.advance()

        compiled = compile_ranks(requests, at_once, done)
        count = len(programs)
        read = tuple(read_rank(*compiled[first : first + count]) for first in range(0, len(compiled), count))
    stages = stages_of_layers(config.model, layout)
    return DryRun(config, layout, target, compiled[0].mindspore, stages, read)


def _named(word: str, layout: Layout) -> list[int]:
    match word:
        case "first":
            return [0]
        case "middle":
            return [layout.devices // 2]
        case "last":
            return [layout.devices - 1]
        case "stages":
            return [stage * layout.devices_per_stage for stage in range(layout.pipeline_stages)]
    return list(range(layout.devices))


@contextlib.contextmanager
def _working_directory(keep: Path | None) -> Iterator[Path]:
    """`keep`, or a directory that goes once all went well: a failed compile's log must be there to be read."""
    if keep is not None:
        yield keep.absolute()
        return
    directory = Path(tempfile.mkdtemp(prefix="pangu-alpha-dry-run-"))
    failed = False
    try:
        yield directory
    except PanguError:
        failed = any(directory.rglob("log.txt"))  # which the message names
        raise
    finally:
        if not failed:
            shutil.rmtree(directory, ignore_errors=True)
