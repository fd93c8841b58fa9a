"""Which vocabulary prepared text gets: the official one, a given file, or one trained on the text itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from pangu_alpha.data.content_key import digest_of_parts, digest_of_texts, package_version
from pangu_alpha.data.worker_count import worker_count
from pangu_alpha.files import atomic_directory
from pangu_alpha.progress import format_duration

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever the same texts would give another vocabulary."""


def given_vocabulary(kind: str, path: str) -> Path:
    """Path of a vocabulary that exists already: kind official or file.

    Raises:
        PanguError: the official one was never fetched.
    """
    if kind == "official":
        from pangu_alpha.data.official_vocabulary import official_vocabulary

        return official_vocabulary()
    return Path(path).expanduser()


def trained_vocabulary(
    texts: Iterable[str], size: int, characters: int, root: Path, workers: int, setting: str
) -> Path:
    """A vocabulary trained on the first `characters` of `texts`, or the same from an earlier run.

    Args:
        texts: documents, only as many are drawn as are looked at.
        size: pieces.
        characters: of whole documents, at least one.
        root: directory that holds vocabularies; it is named by its content there.
        workers: processes; 0: one a core.
        setting: what the user set the size with, for messages: model.vocab_size=.

    Raises:
        PanguError: the text is too small for so many pieces.
    """
    from pangu_alpha.data.tokenizer_training import train_tokenizer

    shown: list[str] = []
    total = 0
    for text in texts:
        if total + len(text) > characters and shown:
            break
        shown.append(text)
        total += len(text)
    key = digest_of_parts(
        {
            "format": FORMAT,
            "texts": digest_of_texts(shown),
            "vocab_size": size,
            "packages": [package_version("jieba"), package_version("sentencepiece")],
        }
    )
    directory = root / f"vocabulary-{key[:12]}"
    path = directory / "vocab.model"
    if path.exists():
        logger.info("vocabulary: taken from %s", directory)
        return path
    start = time.monotonic()
    logger.info("vocabulary: training %s pieces on %s characters", f"{size:,}", f"{total:,}")
    with atomic_directory(directory, replace=False) as partial:
        train_tokenizer(shown, size, partial / "vocab.model", worker_count(workers), setting)
    logger.info("vocabulary: trained in %s", format_duration(time.monotonic() - start))
    return path
