"""The training pipeline: MindRecord files to batches, in an order that any step can be made again from.

Batch b holds the samples at positions b · batch_size … of one endless sequence, epoch after epoch, each epoch in an
order drawn from (seed, epoch).  Nothing depends on what was read before, so a resumed run starts at any position at
once, and every data-parallel rank takes its rows of the same global batch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pangu_alpha.config import Config
from pangu_alpha.data.order import Batch, arrange_samples, arrange_sequentially
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.tokenizer import PAD
from pangu_alpha.errors import PanguError
from pangu_alpha.interrupts import unbroken_import

COLUMN = "input_ids"
"""The column of the official MindRecord files."""

_WINDOW = 1 << 16  # samples that one reader is asked for at most; opening one costs some milliseconds
Ids = npt.NDArray[np.int32]


def pipeline_error(error: RuntimeError, files: tuple[Path, ...]) -> PanguError:
    """One line from the report of MindSpore's data pipeline."""
    own = re.search(r"PanguError: (.*)", str(error))  # raised inside a generator, and wrapped there
    if own:
        return PanguError(own[1])
    lines = re.findall(r"\[ERROR\] (.*)", str(error))
    reason = lines[0] if lines else str(error).strip().partition("\n")[0]
    return PanguError(f"cannot read {files[0]}{' …' if len(files) > 1 else ''} as MindRecord: {reason}")


def count_records(files: tuple[Path, ...]) -> int:
    """Number of records in MindRecord files.

    Raises:
        PanguError: a file or its index (.db) is missing or damaged, or has no column `input_ids`.
    """
    with unbroken_import():
        import mindspore.dataset

    try:
        return int(
            mindspore.dataset.MindDataset([str(path) for path in files], [COLUMN], shuffle=False).get_dataset_size()
        )
    except RuntimeError as error:
        raise pipeline_error(error, files) from error


def read_records(files: tuple[Path, ...], batch_size: int, rows: npt.NDArray[np.int64] | None = None) -> Iterator[Ids]:
    """Records of MindRecord files in batches; the last may be smaller.

    Args:
        files: in order.
        batch_size: records of one batch; all of a batch must have one length.
        rows: row numbers over all files, in the order wanted; None reads everything as it lies.

    Yields:
        int32 [batch_size, length].

    Raises:
        PanguError: a file cannot be read.
    """
    with unbroken_import():
        import mindspore.dataset

    if rows is not None and len(rows) > (total := count_records(files)):
        # MindSpore takes no more rows than there are: few records, asked for often, are kept in memory.
        unique, places = np.unique(rows, return_inverse=True)
        records = np.concatenate(list(read_records(files, min(total, 1024), unique)))
        for start in range(0, len(rows), batch_size):
            yield records[places[start : start + batch_size]]
        return
    names = [str(path) for path in files]
    # One reading thread is faster than several: a record is small, and several only wait for each other.
    chosen: dict[str, Any] = {"num_parallel_workers": 1}
    if rows is None:
        chosen["shuffle"] = False
    else:
        chosen["sampler"] = mindspore.dataset.SubsetSampler(rows.tolist())
    try:
        dataset = mindspore.dataset.MindDataset(names, [COLUMN], **chosen)
        iterator = dataset.batch(batch_size, num_parallel_workers=1).create_tuple_iterator(
            num_epochs=1, output_numpy=True
        )
        try:
            for (ids,) in iterator:
                yield ids
        finally:
            with contextlib.suppress(AttributeError):
                iterator.stop()
    except RuntimeError as error:
        raise pipeline_error(error, files) from error


def iterate_batches(
    files: SampleFiles,
    config: Config,
    batch_size: int,
    start_sample: int = 0,
    steps: int | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batch]:
    """Training batches without end, or `steps` of them.

    Args:
        files: training samples.
        config: data (order, spans, resets, shuffle) and train.seed are used.
        batch_size: samples of the global batch, over all ranks.
        start_sample: how many samples of the sequence were taken before (steps so far × batch size).
        steps: how many batches to give; None never ends.
        rank: of this process among the data-parallel ones; it gets its part of each micro batch.
        ranks: number of data-parallel processes.

    Yields:
        int32 arrays [batch_size / ranks, S].

    Raises:
        PanguError: there are no samples, ranks does not divide batch_size, or a file cannot be read.
    """
    if files.samples == 0:
        raise PanguError("there are no training samples")
    if batch_size % (ranks * config.train.micro_batches):
        raise PanguError(
            f"a batch of {batch_size} samples in {config.train.micro_batches} micro batches cannot be divided among "
            f"{ranks} data-parallel ranks"
        )
    own = batch_size // ranks
    # Its part of every micro batch, so that micro batches are the same for any number of ranks.
    by_micro_batch = np.arange(batch_size, dtype=np.int64).reshape(config.train.micro_batches, ranks, -1)
    columns = by_micro_batch[:, rank].reshape(-1)
    window = max(1, min(_WINDOW, files.samples) // own)
    seed, step = config.train.seed, 0
    while steps is None or step < steps:
        taken = window if steps is None else min(window, steps - step)
        first = start_sample + (step + np.arange(taken, dtype=np.int64)) * batch_size
        positions = (first[:, None] + columns).reshape(-1)
        epochs, samples = files.visited(positions, seed, config.data.shuffle)
        for number, ids in enumerate(read_records(files.files, own, files.rows(samples))):
            part = slice(number * own, (number + 1) * own)
            yield arrange_samples(ids, epochs[part], samples[part], seed, config.data)
        step += taken


class _Batches:
    """What MindSpore's GeneratorDataset takes: batches that can be gone through again, and their number."""

    def __init__(self, steps: int, *arguments: Any) -> None:
        self._steps, self._arguments = steps, arguments

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        files, config, batch_size, start_sample, rank, ranks = self._arguments
        return iterate_batches(files, config, batch_size, start_sample, self._steps, rank, ranks)


def build_dataset(
    files: SampleFiles, config: Config, batch_size: int, start_sample: int, steps: int, rank: int = 0, ranks: int = 1
) -> Any:
    """A MindSpore dataset of `steps` training batches, as `iterate_batches` gives them, read ahead in a thread.

    Args:
        files: training samples.
        config: data and train.seed are used.
        batch_size: samples of the global batch, over all ranks.
        start_sample: how many samples of the sequence were taken before.
        steps: batches to give.
        rank: of this process among the data-parallel ones.
        ranks: number of data-parallel processes.

    Returns:
        mindspore.dataset.GeneratorDataset with the columns of `Batch`, int32 [batch_size / ranks, S] each.
    """
    with unbroken_import():
        import mindspore.dataset

    source = _Batches(steps, files, config, batch_size, start_sample, rank, ranks)
    return mindspore.dataset.GeneratorDataset(
        source, list(Batch._fields), shuffle=False, num_parallel_workers=1, python_multiprocessing=False
    )


def training_batches(
    files: SampleFiles, config: Config, batch_size: int, start_sample: int, steps: int, rank: int = 0, ranks: int = 1
) -> Iterator[Batch]:
    """The batches of `build_dataset`, read ahead while the model works, as numpy arrays.

    Raises:
        PanguError: as `iterate_batches`.
    """
    dataset = build_dataset(files, config, batch_size, start_sample, steps, rank, ranks)
    try:
        iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        try:
            for arrays in iterator:
                yield Batch(*arrays)
        finally:
            with contextlib.suppress(AttributeError):
                iterator.stop()
    except RuntimeError as error:
        raise pipeline_error(error, files.files) from error


def validation_batches(
    files: SampleFiles, config: Config, batch_size: int, samples: int | None = None
) -> Iterator[Batch]:
    """Held-out samples in sequential order, every batch full: padding samples, which the loss masks, fill the last.

    A step that would ask for padding feeds padding, so that the loss masks it: exactly the tokens of the held-out
    documents are measured, each once.

    Args:
        files: held-out samples.
        config: data.reset_positions and data.reset_attention are used.
        batch_size: samples of one batch.
        samples: how many to take, from the first; None takes all.

    Yields:
        int32 arrays [batch_size, S].
    """
    count = files.samples if samples is None else min(samples, files.samples)
    if count == 0:
        return
    for ids in read_records(files.files, batch_size, np.arange(count, dtype=np.int64)):
        full = np.full((batch_size, ids.shape[1]), PAD, np.int32)
        full[: len(ids)] = ids
        batch = arrange_sequentially(full, config.data.reset_positions, config.data.reset_attention)
        yield batch._replace(tokens=np.where(batch.labels == PAD, np.int32(PAD), batch.tokens))
