"""Trains a new vocabulary the way the published one was trained.

Text is cut into words as for encoding, and sentencepiece makes a unigram model of them with the published settings
(the `trainer_spec` inside the official `vocab.model`).  Several processes share the cutting of a large text; their
jobs follow from the text alone and come back in order, so that the number of processes changes nothing.

Sentencepiece's way of choosing pieces has two blind spots that hit text with a space between all words, and hit it
hard when the vocabulary is small.  Both are mended by a few more lines of text, not by other settings:

- Candidates are substrings that two different characters may follow.  A whole word is always followed by a space, so
  it is no candidate unless it also ends a line: frequent words are shown once more, each on a line of its own.
- A piece such as "▁、" is dropped if its best replacement costs little.  Where the bare "、" never occurs, the
  replacement is taken to be the most frequent piece of all, and punctuation and digits lose their pieces: each
  character is shown once more behind ▃, where it stands bare.

With 8,000 pieces from 4 million characters of news and reviews a token holds 1.24 characters instead of 1.17
(`benchmarks/vocabulary.py`).
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from pangu_alpha.data.piece_finding import SentencePieceError, find_pieces
from pangu_alpha.data.segmentation import load_segmenter
from pangu_alpha.data.tokenizer import FIRST_PIECES, LINE_END, Tokenizer
from pangu_alpha.data.worker_count import worker_count
from pangu_alpha.data.worker_pool import WorkerPool
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import final_name
from pangu_alpha.progress import Progress, format_duration

logger = logging.getLogger(__name__)

_PUBLISHED_SETTINGS: dict[str, Any] = {
    "model_type": "unigram",
    "normalization_rule_name": "nmt_nfkc",
    "user_defined_symbols": list(FIRST_PIECES[3:]),  # ids 3 to 9, after <unk>, <s> and </s>
    "character_coverage": 0.9995,
    "max_sentence_length": 4192,
    "max_sentencepiece_length": 16,
    "byte_fallback": False,
    "split_digits": False,
}
_SETTINGS = _PUBLISHED_SETTINGS | {
    # Part of the result: each thread adds up the counts of its share in float32.  Published: 100.
    "num_threads": 16,
    "minloglevel": 2,
}
MOST_PIECES = 1_000_000
"""Sentencepiece chooses among so many candidates at first."""
_BYTES_OF_A_LINE = 4000
"""Sentencepiece leaves out lines above max_sentence_length bytes."""
_RESERVED = "▅"
"""Sentencepiece leaves out lines with this character, which it uses itself."""
_FREQUENT = 10
"""Words that occur so often are shown once more on a line of their own."""
_CHARACTERS_OF_A_JOB = 200_000
_CHARACTERS_WORTH_PROCESSES = 8_000_000
"""Less text than this is cut sooner than processes have started."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, path: str | Path, workers: int = 0, setting: str = "--vocab-size "
) -> Tokenizer:
    """Train a vocabulary and write it to a file.

    Args:
        texts: documents; read once, never held at once.
        vocab_size: pieces that the vocabulary will have, the ten fixed ones included.
        path: file to write, whole or not at all.
        workers: processes that cut words; 0 takes one a core.  The result is the same for any number.
        setting: what the user set the size with, for messages; a number behind it is ready to paste.

    Raises:
        UsageError: no vocabulary can have so many pieces.
        PanguError: the text is too little for so many pieces, or has more characters than so few can hold.
    """
    require_possible(vocab_size, setting)
    start = time.monotonic()
    lines, counts = _cut_texts(texts, workers)
    if not counts:
        raise PanguError("there is no text to train a vocabulary on: the sources hold no word")
    logger.info("finding pieces for %s different words", f"{len(counts):,}")
    tokenizer = Tokenizer(_train(lines + _more_lines(counts), vocab_size, setting), str(path))
    tokenizer.save(path)
    seconds = time.monotonic() - start
    logger.info("vocabulary of %s pieces in %s: %s", f"{vocab_size:,}", format_duration(seconds), final_name(path))
    return tokenizer


def require_possible(vocab_size: int, setting: str) -> None:
    """Raise UsageError if no text gives a vocabulary of so many pieces; `setting` as for `train_tokenizer`."""
    if not 1 <= vocab_size <= MOST_PIECES:
        raise UsageError(
            f"{setting.rstrip(' =')} is {vocab_size}; it must lie between 1 and {MOST_PIECES}, usually 4000 to 40000"
        )


def _more_lines(counts: Counter[str]) -> list[str]:
    """The lines that open sentencepiece's eyes (see the module's text)."""
    frequent = sorted(word for word, count in counts.items() if count >= _FREQUENT)
    bare = [FIRST_PIECES[LINE_END] + character for character in sorted(set().union(*counts))]
    return frequent + bare


def _cut_texts(texts: Iterable[str], workers: int) -> tuple[list[str], Counter[str]]:
    """Lines of words with a space between, and how often each word occurs."""
    jobs = _jobs(texts)
    first: list[list[str]] = []
    characters = 0
    for job in jobs:
        first.append(job)
        characters += sum(map(len, job))
        if characters >= _CHARACTERS_WORTH_PROCESSES:
            break
    lines: list[str] = []
    counts: Counter[str] = Counter()
    processes = worker_count(workers) if characters >= _CHARACTERS_WORTH_PROCESSES else 1
    with Progress("cutting words", unit="characters") as progress:
        for job_lines, job_counts, amount in _cut_jobs(itertools.chain(first, jobs), processes):
            lines += job_lines
            counts.update(job_counts)
            progress.advance(amount)
    return lines, counts


def _jobs(texts: Iterable[str]) -> Iterator[list[str]]:
    job: list[str] = []
    characters = 0
    for text in texts:
        job.append(text)
        characters += len(text)
        if characters >= _CHARACTERS_OF_A_JOB:
            yield job
            job, characters = [], 0
    if job:
        yield job


def _cut_jobs(jobs: Iterable[list[str]], processes: int) -> Iterator[tuple[list[str], Counter[str], int]]:
    """Lines, counts and characters of each job, in order."""
    if processes == 1:
        for job in jobs:
            yield *_cut_job(job), sum(map(len, job))
        return
    with WorkerPool(processes) as pool:
        waiting: deque[tuple[Future[tuple[list[str], Counter[str]]], int]] = deque()
        try:
            for job in jobs:
                waiting.append((pool.submit(_cut_job, job), sum(map(len, job))))
                if len(waiting) > 2 * processes:  # no more jobs than that lie in memory, however many there are
                    future, amount = waiting.popleft()
                    yield *future.result(), amount
            for future, amount in waiting:
                yield *future.result(), amount
        except BrokenProcessPool as error:
            raise PanguError(
                "a process that cuts words ended early, perhaps for lack of memory; try fewer with data.workers=1"
            ) from error


def _cut_job(texts: list[str]) -> tuple[list[str], Counter[str]]:
    segmenter = load_segmenter()
    counts: Counter[str] = Counter()
    lines: list[str] = []
    line: list[str] = []
    size = 0
    for text in texts:
        for word in segmenter.words(text.replace(" ", "▂").replace("\n", "▃")):
            if not word.isprintable() or _RESERVED in word:
                continue  # white space and control characters, which encoding drops
            word_size = len(word.encode()) + 1
            if word_size > _BYTES_OF_A_LINE:
                continue  # no word of a language
            if size + word_size > _BYTES_OF_A_LINE:
                lines.append(" ".join(line))
                line, size = [], 0
            line.append(word)
            size += word_size
            counts[word] += 1
    if line:
        lines.append(" ".join(line))
    return lines, counts


def _train(lines: list[str], vocab_size: int, setting: str) -> bytes:
    """The bytes of a sentencepiece model."""
    try:
        return find_pieces(lines, {"vocab_size": vocab_size, **_SETTINGS})
    except SentencePieceError as error:
        raise _training_error(str(error), vocab_size, setting) from error


def _training_error(message: str, vocab_size: int, setting: str) -> PanguError:
    """Sentencepiece's complaint as one line that says which sizes the text allows."""
    if most := re.search(r"set it to a value <= (\d+)", message):
        return PanguError(
            f"the text is too little for a vocabulary of {vocab_size} pieces: at most {most[1]} can be "
            f"found in it; give more text, or set {setting}{most[1]} or less"
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return PanguError(
            f"the text has too many different characters for a vocabulary of {vocab_size} pieces: the "
            f"characters alone need {least[1]}; set {setting}{least[1]} or more"
        )
    return PanguError(f"sentencepiece cannot train a vocabulary of {vocab_size} pieces: {message}")
