"""Texts to ids in several processes; the result does not depend on how many."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pangu_alpha.data.tokenizer import END_OF_TEXT, Tokenizer
from pangu_alpha.errors import PanguError
from pangu_alpha.progress import Progress

Ids = npt.NDArray[np.int32]

_CHARACTERS_OF_A_JOB = 100_000

_tokenizer: Tokenizer | None = None  # of a worker process


def worker_count(workers: int) -> int:
    """Processes for `data.workers`: as given, or one for each core that this process may use."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_documents(texts: Sequence[str], tokenizer_path: Path, workers: int) -> list[Ids]:
    """Ids of each text, its end token included, in the order of the texts.

    Args:
        texts: documents.
        tokenizer_path: vocabulary.
        workers: processes; 0 takes one a core, 1 works in this one.

    Raises:
        PanguError: the vocabulary cannot be read, or a process ended early.
    """
    jobs = list(_jobs(texts))
    processes = min(worker_count(workers), len(jobs))
    result: list[Ids] = []
    with Progress("tokenizing", sum(map(len, texts)), "characters") as progress:
        if processes <= 1:
            tokenizer = Tokenizer.load(tokenizer_path)
            for job in jobs:
                result += _encode(tokenizer, job)
                progress.advance(sum(map(len, job)))
            return result
        # Fresh processes rather than forks: MindSpore's threads would not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _start_worker, (tokenizer_path,)) as pool:
            try:
                for job, (ids, lengths) in zip(jobs, pool.map(_encode_job, jobs), strict=True):
                    result += np.split(ids, np.cumsum(lengths)[:-1])
                    progress.advance(sum(map(len, job)))
            except BrokenProcessPool as error:
                raise PanguError(
                    "a tokenizing process ended early, perhaps for lack of memory; try fewer with data.workers=1"
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return result


def _jobs(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = characters = 0
    for index, text in enumerate(texts):
        characters += len(text)
        if characters >= _CHARACTERS_OF_A_JOB:
            yield texts[start : index + 1]
            start, characters = index + 1, 0
    if start < len(texts):
        yield texts[start:]


def _start_worker(tokenizer_path: Path) -> None:
    global _tokenizer
    _tokenizer = Tokenizer.load(tokenizer_path)


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    return [np.array([*tokenizer.encode(text), END_OF_TEXT], np.int32) for text in texts]


def _encode_job(texts: Sequence[str]) -> tuple[Ids, list[int]]:
    assert _tokenizer is not None
    # One array instead of a list for each document: it crosses to the other process many times faster.
    encoded = [_tokenizer.encode(text) for text in texts]
    ids = np.fromiter(itertools.chain.from_iterable([*each, END_OF_TEXT] for each in encoded), np.int32)
    return ids, [len(each) + 1 for each in encoded]
