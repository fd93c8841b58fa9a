"""One call for a whole run of the data factory: all stages, the vocabulary, the samples, the manifest, the report."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.data.content_key import digest_of_parts
from pangu_alpha.data.engines.local import LocalEngine
from pangu_alpha.data.factory import Factory
from pangu_alpha.data.mixture import MixturePart
from pangu_alpha.data.prepared import (
    HELD_OUT,
    TRAINING,
    VOCABULARY,
    Prepared,
    SideCount,
    load_prepared,
    save_manifest,
)
from pangu_alpha.data.recipe import Recipe
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.stages.clean import NUMBERS
from pangu_alpha.data.stages.duplicates import Decisions
from pangu_alpha.data.stages.pack import PackedDocuments, PackedGroup, pack
from pangu_alpha.data.stages.select import read_texts
from pangu_alpha.data.tokenizer import Tokenizer
from pangu_alpha.data.vocabulary import given_vocabulary, trained_vocabulary
from pangu_alpha.data.worker_pool import termination_raises
from pangu_alpha.errors import PanguError
from pangu_alpha.progress import format_duration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FactoryResult:
    """What a run leaves."""

    prepared: Prepared
    factory: Factory
    decisions: Decisions
    report: Path
    """The HTML page."""
    broken_files: tuple[str, ...]
    """One line for each file that could not be read to its end."""


def run_factory(recipe: Recipe, output: Path, workers: int = 0) -> FactoryResult:
    """Make prepared data of a recipe's sources in `output`, or find what is missing there and do that.

    Args:
        recipe: what to do.
        output: a directory of its own.
        workers: processes; 0: one a core.

    Raises:
        PanguError: nothing to read, another run in the same directory, no space, a vocabulary that does not fit.
    """
    from pangu_alpha.data.report import write_report

    started = time.monotonic()
    with termination_raises(), LocalEngine(workers) as engine:
        factory = Factory(recipe, output, engine)
        with factory.lock():
            factory.find_inputs()
            factory.claim()
            factory.run_clean()
            decisions = factory.run_duplicates()
            selected = factory.run_select(decisions)
            vocabulary = _vocabulary(factory, selected, workers)
            tokens = factory.run_tokens(selected, vocabulary)
            prepared = load_prepared(output, factory.key) or _packed(factory, selected, tokens)
            report = write_report(factory, decisions, prepared, time.monotonic() - started)
    logger.info("data factory: done in %s", format_duration(time.monotonic() - started))
    return FactoryResult(prepared, factory, decisions, report, tuple(factory.broken_files))


def _vocabulary(factory: Factory, selected: list[Path], workers: int) -> Path:
    """The vocabulary in the output, put there if it is not."""
    choice, path = factory.recipe.tokenizer, factory.output / VOCABULARY
    if choice.kind == "train":
        if path.exists():
            return path
        source = trained_vocabulary(
            training_texts(selected, choice.train_characters),
            choice.vocab_size,
            choice.train_characters,
            factory.output,
            workers,
            "tokenizer.vocab_size=",
        )
    else:
        source = given_vocabulary(choice.kind, choice.path)
    tokenizer = Tokenizer.load(source)
    if path.exists():
        packed = Tokenizer.load(path)
        if packed.sha256 != tokenizer.sha256:
            raise PanguError(
                f"{source}: SHA-256 {tokenizer.sha256[:12]}… is not that of the vocabulary with which {factory.output} "
                f"was tokenized ({packed.sha256[:12]}…); give another output, or the right vocabulary"
            )
    else:
        tokenizer.save(path)
    return path


def training_texts(selected: list[Path], characters: int) -> Iterator[str]:
    """Training documents of all sources in the order of packing, a little more than `characters` of them.

    Only batches that have one are read.
    """
    batches, rows = PackedDocuments(selected, selected).order(held_out=False)
    lengths = np.empty(len(batches), np.int64)
    for batch in np.unique(batches):
        own = batches == batch
        lengths[own] = np.load(selected[batch] / NUMBERS)["characters"][rows[own]]
    count = int(np.searchsorted(np.cumsum(lengths), characters, "right")) + 1
    texts: dict[int, str] = {}
    for batch in np.unique(batches[:count]):
        places = np.flatnonzero(batches[:count] == batch)
        found = read_texts(selected[batch]).take(rows[places]).to_pylist()
        texts.update(zip(places.tolist(), found, strict=True))
    yield from (texts[place] for place in range(min(count, len(batches))))


def _packed(factory: Factory, selected: list[Path], tokens: list[Path]) -> Prepared:
    """Samples of all sources, and the manifest."""
    recipe, output = factory.recipe, factory.output
    sides: dict[bool, list[tuple[str, PackedGroup]]] = {False: [], True: []}
    digest = hashlib.sha256()
    for held_out, folder in ((False, "train"), (True, "valid")):
        if (output / folder).exists():  # of a run that ended before its manifest
            shutil.rmtree(output / folder)
        (output / folder).mkdir(parents=True)
        for source in recipe.sources:
            own = [place for place, item in enumerate(selected) if factory.source_of(item) == source.name]
            documents = PackedDocuments([selected[place] for place in own], [tokens[place] for place in own])
            digest.update(f"{held_out} {source.name} {source.weight}".encode())
            group = pack(
                documents,
                held_out,
                output / folder,
                source.name,
                recipe.packing.seq_length,
                recipe.packing.tail,
                digest,
            )
            sides[held_out].append((source.name, group))
    if not sum(group.samples for _, group in sides[False]):
        raise PanguError(
            f"{output}: the documents that are left give no sample of packing.seq_length {recipe.packing.seq_length}; "
            "add text, lower it, loosen the rules, or set packing.tail=pad"
        )
    prepared = prepared_of(
        factory, sides, {source.name: source.weight for source in recipe.sources}, digest.hexdigest()
    )
    save_manifest(prepared, output, factory.key, {"recipe": recipe.to_dict()}, ("tokenizer", "train", "valid"))
    return prepared


def prepared_of(
    factory: Factory, sides: dict[bool, list[tuple[str, PackedGroup]]], weights: dict[str, float], samples_sha256: str
) -> Prepared:
    """What the manifest tells of packed samples."""
    tokenizer_sha256 = Tokenizer.load(factory.output / VOCABULARY).sha256
    counts = []
    for held_out, groups in sides.items():
        for source, group in groups:
            side = HELD_OUT if held_out else TRAINING
            counts.append(SideCount(source, side, group.documents, group.characters, group.tokens))
    mixture = tuple(
        MixturePart(source, group.samples, weights[source])
        for source, group in sides[False]
        if group.samples and weights[source]
    )
    if any(weights.values()) and len(mixture) < sum(group.samples > 0 for _, group in sides[False]):
        left = [source for source, group in sides[False] if group.samples and not weights[source]]
        raise PanguError(f"sources.{left[0]}.weight is 0 while others have one; give all sources a weight, or none")
    valid = [group for _, group in sides[True]]
    return Prepared(
        factory.output,
        _files(sides[False], mixture),
        _files(sides[True]),
        sum(group.tokens for group in valid),
        sum(group.characters + group.documents for group in valid),
        tuple(counts),
        tokenizer_sha256,
        digest_of_parts({"tokenizer": tokenizer_sha256, "samples": samples_sha256}),
    )


def _files(groups: list[tuple[str, PackedGroup]], mixture: tuple[MixturePart, ...] = ()) -> SampleFiles:
    files = tuple(path for _, group in groups for path in group.files)
    return SampleFiles(files, sum(group.samples for _, group in groups), None, mixture)
