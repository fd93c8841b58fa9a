"""From `data.sources` to a vocabulary, training samples and held-out samples in one directory, made once.

Each stage is a function of what the stage before gave: read, leave out duplicates, hold out, train a vocabulary,
tokenize, pack.  Data is named by a hash of its sources and settings and appears under its name only when it is
complete; a second run with nothing changed takes it as it lies, and a vocabulary serves every packing of its text.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pangu_alpha.config import Config
from pangu_alpha.data.content_key import digest_of_file, digest_of_parts, digest_of_texts, package_version
from pangu_alpha.data.document import Document
from pangu_alpha.data.encoding_pool import encode_documents, worker_count
from pangu_alpha.data.held_out import first_occurrences, is_held_out, packing_key
from pangu_alpha.data.prepared import (
    FORMAT,
    HELD_OUT,
    TRAINING,
    VOCABULARY,
    Prepared,
    SideCount,
    load_prepared,
    save_manifest,
)
from pangu_alpha.data.readers import MINDRECORD, SourceFile, find_files, read_sources
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD, Tokenizer
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import atomic_directory
from pangu_alpha.progress import Progress, format_duration

logger = logging.getLogger(__name__)

Ids = npt.NDArray[np.int32]


def prepare(config: Config, root: Path) -> Prepared:
    """Prepare the data of a run, or find it prepared.

    Args:
        config: model.vocab_size, model.seq_length, tokenizer and data are used.
        root: directory that holds prepared data, `runs/prepared` for instance; made if it is missing.

    Raises:
        UsageError: settings that contradict each other.
        PanguError: sources that cannot be read, too little text, no space on the disk.
    """
    files = find_files(config.data.sources)
    parts = _key_parts(config, files)
    key = digest_of_parts(parts)
    for directory in sorted(root.glob(f"*-{key[:12]}")):
        found = load_prepared(directory, key)
        if found is not None:
            logger.info(
                "prepared text: nothing changed, taken from %s (%s training samples, %s held out)",
                directory,
                f"{found.train_samples:,}",
                f"{found.valid_samples:,}",
            )
            return found
        logger.info("prepared text: %s is incomplete or changed; preparing again", directory)
    start = time.monotonic()
    directory = root / f"{config.name}-{key[:12]}"
    # A second run that made the same at the same time keeps what the first one may already be reading.
    with atomic_directory(directory, replace=directory.exists()) as partial:
        of_records = files[0].kind == MINDRECORD
        prepared = (_prepare_records if of_records else _prepare_text)(config, files, root, partial)
        prepared = replace(
            prepared,
            directory=directory,
            train=_moved(prepared.train, partial, directory),
            valid=_moved(prepared.valid, partial, directory),
        )
        save_manifest(prepared, partial, key, parts)
    logger.info(
        "prepared text: %s training samples, %s held out, in %s (%s)",
        f"{prepared.train_samples:,}",
        f"{prepared.valid_samples:,}",
        directory,
        format_duration(time.monotonic() - start),
    )
    return prepared


def _key_parts(config: Config, files: list[SourceFile]) -> dict[str, Any]:
    """Everything that decides what the prepared data is."""
    of_records = {file.kind == MINDRECORD for file in files}
    if len(of_records) > 1:
        raise UsageError("data.sources mixes MindRecord files with text; give one or the other")
    parts: dict[str, Any] = {
        "format": FORMAT,
        "files": [[file.kind, digest_of_file(file.path)] for file in files],
        "seq_length": config.model.seq_length,
        "vocab_size": config.model.vocab_size,
        "held_out_share": config.data.held_out_share,
    }
    if True in of_records:
        if config.tokenizer.kind == "train":
            raise UsageError(
                "tokenizer.kind is 'train', but data.sources are MindRecord files, which hold ids and no "
                "text; allowed: official, or file with tokenizer.path"
            )
        # They are used where they lie, so their place matters too.
        parts["places"] = [str(file.path.resolve()) for file in files]
    else:
        parts["sources"] = [file.source for file in files]
        parts["text"] = [config.data.text_key, config.data.encoding, config.data.drop_duplicates, config.data.tail]
        parts["packages"] = [package_version("jieba"), package_version("sentencepiece")]
    if config.tokenizer.kind == "train":
        parts["tokenizer"] = config.tokenizer.train_characters
    else:
        parts["tokenizer"] = digest_of_file(_given_vocabulary(config))
    return parts


def _given_vocabulary(config: Config) -> Path:
    """Path of a vocabulary that exists already."""
    if config.tokenizer.kind == "official":
        from pangu_alpha.data.official_vocabulary import official_vocabulary

        return official_vocabulary()
    return Path(config.tokenizer.path).expanduser()


def _moved(files: SampleFiles, partial: Path, directory: Path) -> SampleFiles:
    """The same files after their directory got its name."""

    def moved(path: Path) -> Path:
        return directory / path.relative_to(partial) if path.is_relative_to(partial) else path

    return replace(
        files,
        files=tuple(moved(path) for path in files.files),
        excluded=moved(files.excluded) if files.excluded else None,
    )


def _prepare_text(config: Config, files: list[SourceFile], root: Path, directory: Path) -> Prepared:
    from pangu_alpha.data.packing import pack_held_out, pack_training, write_records

    documents, duplicates = _read(config, files)
    held_out = [is_held_out(document.text, config.data.held_out_share) for document in documents]
    sides = {
        TRAINING: sorted((d for d, out in zip(documents, held_out, strict=True) if not out), key=_packing_key),
        HELD_OUT: sorted((d for d, out in zip(documents, held_out, strict=True) if out), key=_packing_key),
    }
    if not sides[TRAINING]:
        raise PanguError(
            f"all {len(documents)} documents fell to the held-out side; lower data.held_out_share "
            f"(now {config.data.held_out_share}), or add text"
        )
    if not sides[HELD_OUT] and config.data.held_out_share:
        logger.warning(
            "prepared text: none of the %d documents fell to the held-out side, so nothing will be "
            "measured on held-out text; a larger data.held_out_share may help",
            len(documents),
        )
    tokenizer = _install_vocabulary(config, [document.text for document in sides[TRAINING]], root, directory)
    everything = [*sides[TRAINING], *sides[HELD_OUT]]
    encoded = encode_documents([document.text for document in everything], directory / VOCABULARY, config.data.workers)
    border = len(sides[TRAINING])
    stream = {TRAINING: _joined(encoded[:border]), HELD_OUT: _joined(encoded[border:])}
    seq_length = config.model.seq_length
    samples = {
        TRAINING: pack_training(stream[TRAINING], seq_length, config.data.tail),
        HELD_OUT: pack_held_out(stream[HELD_OUT], seq_length),
    }
    if not len(samples[TRAINING]):
        raise PanguError(_too_little(sides[TRAINING], len(stream[TRAINING]), seq_length))
    written = {}
    for side, folder in ((TRAINING, "train"), (HELD_OUT, "valid")):
        (directory / folder).mkdir()
        paths = write_records(samples[side], directory / folder, folder) if len(samples[side]) else []
        written[side] = SampleFiles(tuple(paths), len(samples[side]))
    counts = _count(everything, encoded, border, duplicates)
    held_out_characters = sum(len(document.text) + 1 for document in sides[HELD_OUT])
    return Prepared(
        directory,
        written[TRAINING],
        written[HELD_OUT],
        len(stream[HELD_OUT]),
        held_out_characters,
        counts,
        tokenizer.sha256,
        _fingerprint(tokenizer, samples[TRAINING], samples[HELD_OUT]),
    )


def _packing_key(document: Document) -> tuple[int, str]:
    return packing_key(document.text)


def _read(config: Config, files: list[SourceFile]) -> tuple[list[Document], dict[str, int]]:
    """All documents, and how many duplicates each source lost."""
    documents = []
    with Progress("reading text", None, "characters") as progress:
        for document in read_sources(files, config.data):
            documents.append(document)
            progress.advance(len(document.text))
    duplicates = dict.fromkeys((file.source for file in files), 0)
    if config.data.drop_duplicates:
        kept = []
        for document, first in zip(documents, first_occurrences(d.text for d in documents), strict=True):
            if first:
                kept.append(document)
            else:
                duplicates[document.source] += 1
        documents = kept
    return documents, duplicates


def _install_vocabulary(config: Config, texts: Sequence[str], root: Path, directory: Path) -> Tokenizer:
    """Put the vocabulary into `directory`, trained on `texts` if the configuration says so."""
    if config.tokenizer.kind == "train":
        source = _train_vocabulary(config, texts, root)
    else:
        source = _given_vocabulary(config)
    tokenizer = Tokenizer.load(source)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise PanguError(
            f"{source}: the vocabulary has {tokenizer.vocab_size} pieces, but model.vocab_size is "
            f"{config.model.vocab_size}; set model.vocab_size={tokenizer.vocab_size}, or take another "
            f"vocabulary"
        )
    if tokenizer.vocab_size < config.model.vocab_size:
        logger.warning(
            "vocabulary: %s has %s pieces; %s of the model's %s rows will never be used",
            source,
            f"{tokenizer.vocab_size:,}",
            f"{config.model.vocab_size - tokenizer.vocab_size:,}",
            f"{config.model.vocab_size:,}",
        )
    tokenizer.save(directory / VOCABULARY)
    return tokenizer


def _train_vocabulary(config: Config, texts: Sequence[str], root: Path) -> Path:
    """A vocabulary trained on the first `tokenizer.train_characters` of `texts`, or the same from an earlier run."""
    from pangu_alpha.data.tokenizer_training import train_tokenizer

    shown: list[str] = []
    characters = 0
    for text in texts:
        if characters + len(text) > config.tokenizer.train_characters and shown:
            break
        shown.append(text)
        characters += len(text)
    size = config.model.vocab_size
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
    logger.info("vocabulary: training %s pieces on %s characters", f"{size:,}", f"{characters:,}")
    with atomic_directory(directory, replace=False) as partial:
        train_tokenizer(shown, size, partial / "vocab.model", worker_count(config.data.workers))
    logger.info("vocabulary: trained in %s", format_duration(time.monotonic() - start))
    return path


def _joined(encoded: Sequence[Ids]) -> Ids:
    return np.concatenate(encoded) if encoded else np.zeros(0, np.int32)


def _count(
    documents: Sequence[Document], encoded: Sequence[Ids], border: int, duplicates: dict[str, int]
) -> tuple[SideCount, ...]:
    """Amounts by source and side; the first `border` documents are for training."""
    amounts = {(source, side): [0, 0, 0] for source in duplicates for side in (TRAINING, HELD_OUT)}
    for index, (document, ids) in enumerate(zip(documents, encoded, strict=True)):
        amount = amounts[document.source, TRAINING if index < border else HELD_OUT]
        amount[0] += 1
        amount[1] += len(document.text)
        amount[2] += len(ids)
    return tuple(
        SideCount(source, side, amount[0], amount[1], amount[2], duplicates[source] if side == TRAINING else 0)
        for (source, side), amount in amounts.items()
    )


def _too_little(documents: Sequence[Document], tokens: int, seq_length: int) -> str:
    characters = sum(len(document.text) for document in documents)
    missing = round(characters / tokens * (seq_length + 1 - tokens)) + 1
    return (
        f"the training text gives {tokens} tokens, but one sample of model.seq_length {seq_length} needs "
        f"{seq_length + 1}: add about {missing} characters, lower model.seq_length, or set data.tail=pad"
    )


def _fingerprint(tokenizer: Tokenizer, *arrays: Ids) -> str:
    digest = hashlib.sha256(tokenizer.sha256.encode())
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, "<i4").tobytes())
    return digest.hexdigest()


def _prepare_records(config: Config, files: list[SourceFile], root: Path, directory: Path) -> Prepared:
    from pangu_alpha.data.own_records import read_own_records

    tokenizer = _install_vocabulary(config, [], root, directory)
    records = read_own_records(
        tuple(file.path.resolve() for file in files),
        directory,
        config.model.seq_length,
        tokenizer.vocab_size,
        config.data.held_out_share,
    )
    if not records.train.samples:
        raise PanguError("data.sources: the MindRecord files hold no sample for training")
    asked = records.held_out[:, 1:]
    asked = asked[asked != PAD]
    characters = len(tokenizer.decode(asked[asked != END_OF_TEXT].tolist())) + int((asked == END_OF_TEXT).sum())
    name = ", ".join(dict.fromkeys(file.source for file in files))
    counts = tuple(
        SideCount(name, side, documents, 0, tokens)
        for side, documents, tokens in zip((TRAINING, HELD_OUT), records.documents, records.tokens, strict=True)
    )
    fingerprint = digest_of_parts(
        {
            "tokenizer": tokenizer.sha256,
            "held out": _fingerprint(tokenizer, records.held_out),
            "files": [digest_of_file(file.path) for file in files],
        }
    )
    return Prepared(
        directory, records.train, records.valid, asked.size, characters, counts, tokenizer.sha256, fingerprint
    )
