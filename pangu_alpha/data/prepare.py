"""From `data.sources` to a vocabulary, training samples and held-out samples in one directory, made once.

The stages are the data factory's (`factory.py`), without rules and near duplicates: read, leave out exact duplicates,
hold out, train a vocabulary, tokenize, pack.  Data is named by a hash of its sources and settings and appears under its
name only when it is complete; a second run with nothing changed takes it as it lies, and a vocabulary serves every
packing of its text.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pangu_alpha.config import Config
from pangu_alpha.data.content_key import digest_of_file, digest_of_parts, package_version
from pangu_alpha.data.dataset import read_records
from pangu_alpha.data.engines.local import LocalEngine
from pangu_alpha.data.factory import Factory, InputFile
from pangu_alpha.data.factory_run import training_texts
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
from pangu_alpha.data.readers import MINDRECORD, SourceFile, find_files, read_documents
from pangu_alpha.data.readers.records import RawRecord
from pangu_alpha.data.recipe import Duplicates, Packing, Recipe, Source
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.stages.clean import NUMBERS
from pangu_alpha.data.stages.duplicates import KEPT, Corpus, Decisions
from pangu_alpha.data.stages.pack import PackedDocuments, PackedGroup, pack
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD, Tokenizer
from pangu_alpha.data.vocabulary import given_vocabulary, trained_vocabulary
from pangu_alpha.data.worker_pool import termination_raises
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import atomic_directory, shown_name
from pangu_alpha.progress import format_duration

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
    if config.data.prepared:
        return _of_factory(config)
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
    with termination_raises(), atomic_directory(directory, replace=directory.exists()) as partial:
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


def _of_factory(config: Config) -> Prepared:
    """What `data.prepared` names, checked against the model."""
    directory = Path(config.data.prepared).expanduser()
    prepared = load_prepared(directory)
    if prepared is None:
        raise PanguError(
            f"data.prepared: {directory} holds no prepared data, or it is incomplete or changed; "
            f"pangu-alpha data run output={directory} makes it"
        )
    files = prepared.train_files or prepared.valid_files
    length = next(read_records(files, 1, np.zeros(1, np.int64))).shape[1]
    if length != config.model.seq_length + 1:
        raise PanguError(
            f"data.prepared: samples of {directory} have {length} tokens, and model.seq_length is "
            f"{config.model.seq_length}; set model.seq_length={length - 1}, or pack again with "
            f"packing.seq_length={config.model.seq_length}"
        )
    require_vocabulary_fits(Tokenizer.load(prepared.tokenizer_path), prepared.tokenizer_path, config.model.vocab_size)
    logger.info("prepared text: taken from %s (%s training samples)", directory, f"{prepared.train_samples:,}")
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
        parts["tokenizer"] = digest_of_file(given_vocabulary(config.tokenizer.kind, config.tokenizer.path))
    return parts


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
    names = list(dict.fromkeys(file.source for file in files))
    with LocalEngine(config.data.workers) as engine:
        factory = _factory(config, files, names, directory, engine)
        factory.run_clean()
        corpus = factory.corpus()
        _require_text(names, corpus)
        decisions = factory.run_duplicates()
        selected = factory.run_select(decisions)
        _require_training(config, selected)
        tokenizer = _install_vocabulary(
            config, training_texts(selected, config.tokenizer.train_characters), root, directory
        )
        tokens = factory.run_tokens(selected, directory / VOCABULARY)
    documents = PackedDocuments(selected, tokens)
    seq_length, sides = config.model.seq_length, {}
    fingerprint = hashlib.sha256(tokenizer.sha256.encode())
    for held_out, folder in ((False, "train"), (True, "valid")):
        (directory / folder).mkdir()
        sides[held_out] = pack(
            documents, held_out, directory / folder, folder, seq_length, config.data.tail, fingerprint
        )
    if not sides[False].samples:
        raise PanguError(_too_little(sides[False], seq_length))
    counts = _count(names, factory, corpus, decisions, selected, tokens)
    shutil.rmtree(factory.stages)
    return Prepared(
        directory,
        SampleFiles(sides[False].files, sides[False].samples),
        SampleFiles(sides[True].files, sides[True].samples),
        sides[True].tokens,
        sides[True].characters + sides[True].documents,
        counts,
        tokenizer.sha256,
        fingerprint.hexdigest(),
    )


def _factory(
    config: Config, files: list[SourceFile], names: list[str], directory: Path, engine: LocalEngine
) -> Factory:
    """The factory for `data.sources`: texts as the readers here give them, no rule, exact duplicates at most."""
    recipe = Recipe(
        sources=tuple(Source(name=f"source {number}") for number in range(len(names))),
        duplicates=Duplicates(exact=config.data.drop_duplicates, near=False, prefer=()),
        packing=Packing(config.model.seq_length, config.data.tail, config.data.held_out_share),
        samples=0,
    )
    kinds = {(file.source, file.path): file for file in files}

    def texts(file: SourceFile, settings: Any) -> Iterator[RawRecord]:  # noqa: ARG001 (what splitters are called with)
        for number, document in enumerate(read_documents(kinds[file.source, file.path], config.data)):
            yield RawRecord(number, 3 * len(document.text), document.text)

    factory = Factory(recipe, directory, engine, texts, strict=True)
    factory.inputs = [
        InputFile(replace(file, kind="text"), f"source {names.index(file.source)}", shown_name(file.path.name), "")
        for file in files
    ]
    return factory


def _require_text(names: list[str], corpus: Corpus) -> None:
    """Every source must hold some."""
    found = np.bincount(np.repeat(np.array(corpus.sources, np.int64), np.diff(corpus.starts)), minlength=len(names))
    for name, count in zip(names, found, strict=True):
        if not count:
            raise PanguError(f"data.sources: {name} holds no text")


def _require_training(config: Config, selected: Sequence[Path]) -> None:
    """Some document must be trained on; that none is held out is said."""
    held_out = np.concatenate([np.load(folder / NUMBERS)["held_out"] for folder in selected])
    if held_out.all():
        raise PanguError(
            f"all {len(held_out)} documents fell to the held-out side; lower data.held_out_share "
            f"(now {config.data.held_out_share}), or add text"
        )
    if not held_out.any() and config.data.held_out_share:
        logger.warning(
            "prepared text: none of the %d documents fell to the held-out side, so nothing will be "
            "measured on held-out text; a larger data.held_out_share may help",
            len(held_out),
        )


def _install_vocabulary(config: Config, texts: Iterable[str], root: Path, directory: Path) -> Tokenizer:
    """Put the vocabulary into `directory`, trained on `texts` if the configuration says so."""
    choice = config.tokenizer
    if choice.kind == "train":
        size, workers = config.model.vocab_size, config.data.workers
        source = trained_vocabulary(texts, size, choice.train_characters, root, workers, "model.vocab_size=")
    else:
        source = given_vocabulary(choice.kind, choice.path)
    tokenizer = Tokenizer.load(source)
    require_vocabulary_fits(tokenizer, source, config.model.vocab_size)
    tokenizer.save(directory / VOCABULARY)
    return tokenizer


def require_vocabulary_fits(tokenizer: Tokenizer, source: Path, vocab_size: int) -> None:
    """Raise PanguError if a vocabulary has more pieces than the model has rows; fewer are said."""
    if tokenizer.vocab_size > vocab_size:
        raise PanguError(
            f"{source}: the vocabulary has {tokenizer.vocab_size} pieces, but model.vocab_size is "
            f"{vocab_size}; set model.vocab_size={tokenizer.vocab_size}, or take another vocabulary"
        )
    if tokenizer.vocab_size < vocab_size:
        logger.warning(
            "vocabulary: %s has %s pieces; %s of the model's %s rows will never be used",
            source,
            f"{tokenizer.vocab_size:,}",
            f"{vocab_size - tokenizer.vocab_size:,}",
            f"{vocab_size:,}",
        )


def _count(
    names: list[str],
    factory: Factory,
    corpus: Corpus,
    decisions: Decisions,
    selected: Sequence[Path],
    tokens: Sequence[Path],
) -> tuple[SideCount, ...]:
    """Amounts by source and side."""
    owner = np.repeat(np.array(corpus.sources, np.int64), np.diff(corpus.starts))
    lost = np.bincount(owner[decisions.reason != KEPT], minlength=len(names))
    counts = []
    for number, name in enumerate(names):
        own = [place for place, folder in enumerate(selected) if factory.source_of(folder) == f"source {number}"]
        documents = PackedDocuments([selected[place] for place in own], [tokens[place] for place in own])
        for side, held_out in ((TRAINING, False), (HELD_OUT, True)):
            duplicates = int(lost[number]) if side == TRAINING else 0
            counts.append(SideCount(shown_name(name), side, *documents.count(held_out), duplicates))
    return tuple(counts)


def _too_little(training: PackedGroup, seq_length: int) -> str:
    missing = round(training.characters / training.tokens * (seq_length + 1 - training.tokens)) + 1
    return (
        f"the training text gives {training.tokens} tokens, but one sample of model.seq_length {seq_length} needs "
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
    name = shown_name(", ".join(dict.fromkeys(file.source for file in files)))
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
