"""The data factory: a recipe's files through all stages to samples that training takes, in one directory.

    OUT/run.json               what it is made of: recipe, files, versions
    OUT/stages/1_clean …       results of each stage, a folder a record batch
    OUT/documents/             the final documents, links to the Parquet files of stage 3
    OUT/tokenizer, train, valid, manifest.json    prepared data, as `train` takes it
    OUT/report.html, report.json

A stage's results appear whole or not at all, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.data.content_key import digest_of_file, digest_of_parts, package_version
from pangu_alpha.data.demo_pages import DEMO_PAGES, write_demo_pages
from pangu_alpha.data.engines.local import LocalEngine, Unit, is_done, unit_directories
from pangu_alpha.data.readers import SourceFile, find_files
from pangu_alpha.data.readers.records import RawRecord, split
from pangu_alpha.data.recipe import Recipe
from pangu_alpha.data.stages import duplicates as duplicates_stage
from pangu_alpha.data.stages.clean import COUNTS, CleanSettings, RawBatch, clean
from pangu_alpha.data.stages.select import Selection, SelectSettings, select
from pangu_alpha.data.stages.tokens import tokenize
from pangu_alpha.directory_lock import DirectoryLock
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import atomic_write, shown_name
from pangu_alpha.progress import Progress

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever the same files and recipe would be made into something else."""
CLEAN, BANDS, PAIRS, DECISIONS, SELECT, TOKENS = (
    "1_clean", "2_duplicates/bands", "2_duplicates/pairs", "2_duplicates", "3_select", "4_tokens",
)  # fmt: skip
FACTORY_KINDS = ("text", "json lines", "parquet", "warc", "html", "labelled")

Splitter = Callable[[SourceFile, Any], Iterator[RawRecord]]


@dataclass(frozen=True)
class InputFile:
    """One file of a source."""

    file: SourceFile
    source: str
    place: str
    """Its path below the source's folder."""
    digest: str


class Factory:
    """One run of a recipe into one directory."""

    def __init__(
        self, recipe: Recipe, output: Path, engine: LocalEngine, splitter: Splitter = split, strict: bool = False
    ) -> None:
        """Prepare a run.

        Args:
            recipe: what to do; its sources need paths.
            output: the directory.
            engine: what runs the stages.
            splitter: cuts files into raw records.
            strict: whether a broken record or file ends the run.
        """
        self.recipe, self.output, self.engine = recipe, output, engine
        self.splitter, self.strict = splitter, strict
        self.stages = output / "stages"
        self.inputs: list[InputFile] = []
        self.broken_files: list[str] = []

    # -- what it is made of ------------------------------------------------------------------------------------------

    def find_inputs(self) -> None:
        """Find the files of all sources.

        Raises:
            PanguError: a source has none.
        """
        if not self.recipe.sources:
            raise UsageError("the recipe names no source, and no corpus=DIR is given; add sources to it")
        for source in self.recipe.sources:
            paths = tuple(
                str(write_demo_pages(self.output / "demo_pages")) if path == DEMO_PAGES else path
                for path in source.paths
            )
            for file in find_files(paths, f"sources.{source.name}.paths", FACTORY_KINDS):
                root = Path(file.source).expanduser()
                place = shown_name(file.path.relative_to(root) if root.is_dir() else file.path.name)
                self.inputs.append(InputFile(file, source.name, place, digest_of_file(file.path)))

    def identity(self) -> dict[str, Any]:
        """Everything that decides the results."""
        recipe = self.recipe.to_dict()
        recipe.pop("name")
        for source in recipe["sources"]:
            source.pop("paths")
        return {
            "format": FORMAT,
            "recipe": recipe,
            "files": [[item.source, item.place, item.file.kind, item.digest] for item in self.inputs],
            "packages": {name: package_version(name) for name in ("jieba", "sentencepiece", "opencc", "resiliparse")},
        }

    def claim(self) -> None:
        """Make the directory this run's, or find that it is.

        Raises:
            PanguError: another recipe, or other files, were made into something there.
        """
        identity = json.loads(json.dumps(self.identity()))
        path = self.output / "run.json"
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))["identity"]
            differing = [key for key in identity if before.get(key) != identity[key]]
            if differing:
                raise PanguError(
                    f"{self.output} was made of something else (differs: {', '.join(differing)}); give another output, "
                    "or remove it"
                )
            return
        if self.stages.exists():
            raise PanguError(f"{self.output} holds stages and no run.json; give another output, or remove it")
        with atomic_write(path, "w") as file:
            json.dump({"identity": identity, "recipe": self.recipe.to_dict()}, file, ensure_ascii=False, indent=1)

    @property
    def key(self) -> str:
        """What the results are named by."""
        return digest_of_parts(json.loads(json.dumps(self.identity())))

    # -- the stages --------------------------------------------------------------------------------------------------

    def run_clean(self) -> None:
        """Read and clean everything."""
        settings = CleanSettings(
            self.recipe.rules,
            {source.name: source.reader for source in self.recipe.sources},
            self.recipe.duplicates,
            self.recipe.samples,
            self.strict,
        )
        # Compressed text is three to four times as long; each file's true size corrects the guess once it is known.
        total = sum(self._guess(item) for item in self.inputs)
        with Progress("cleaning", total / 1e6, "MB") as progress:
            self.engine.run(self._raw_batches(progress), clean, settings, self.stages / CLEAN, _InMegabytes(progress))
        if self.broken_files and len(self.broken_files) == len(self.inputs):
            raise PanguError(f"no file could be read; the first: {self.broken_files[0]}")

    def _guess(self, item: InputFile) -> int:
        compressed = item.file.path.suffix.lower() in (".gz", ".zst", ".bz2", ".xz", ".parquet")
        return item.file.path.stat().st_size * (4 if compressed else 1)

    def _raw_batches(self, progress: Progress) -> Iterator[Unit]:
        """Raw batches whose borders depend on the files alone."""
        for number, item in enumerate(self.inputs):
            folder = f"{number:05d}"
            records: list[RawRecord] = []
            batches = size = read = 0
            try:
                for record in self.splitter(item.file, self._reader(item.source)):
                    records.append(record)
                    size += record.size
                    if size >= self.recipe.batch_bytes or len(records) >= 20_000:
                        yield self._raw_unit(folder, batches, size, item, records)
                        batches, read, records, size = batches + 1, read + size, [], 0
            except PanguError as error:
                if self.strict:
                    raise
                logger.warning("%s", error)
                self.broken_files.append(str(error))
            if records:
                yield self._raw_unit(folder, batches, size, item, records)
                read += size
            if progress.total is not None:
                progress.total += (read - self._guess(item)) / 1e6

    def _raw_unit(self, folder: str, batch: int, size: int, item: InputFile, records: list[RawRecord]) -> Unit:
        name = f"{folder}/{batch:06d}"
        done = is_done(self.stages / CLEAN, name)
        return Unit(name, size, None if done else RawBatch(item.file, item.source, item.place, records))

    def _reader(self, source: str) -> Any:
        return next(item.reader for item in self.recipe.sources if item.name == source)

    def clean_batches(self) -> list[Path]:
        """Folders of the cleaned batches, in order."""
        return list(unit_directories(self.stages / CLEAN)) if (self.stages / CLEAN).exists() else []

    def source_of(self, batch: Path) -> str:
        """The source of a cleaned batch."""
        return self.inputs[int(batch.parent.name)].source

    def corpus(self) -> duplicates_stage.Corpus:
        """All cleaned documents."""
        folders = self.clean_batches()
        places = {source.name: number for number, source in enumerate(self.recipe.sources)}
        return duplicates_stage.Corpus.of(folders, [places[self.source_of(folder)] for folder in folders])

    def run_duplicates(self) -> duplicates_stage.Decisions:
        """Decide which documents stay."""
        folder = self.stages / DECISIONS
        if (folder / "decisions.npz").exists():
            return duplicates_stage.Decisions.load(folder)
        corpus, settings = self.corpus(), self.recipe.duplicates
        exact = duplicates_stage.exact_clusters(corpus, settings)
        near = np.zeros((0, 2), np.int64)
        if settings.near and corpus.documents:
            near = self._near_pairs(corpus, exact)
        decisions = duplicates_stage.decide(corpus, settings, exact, near)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "decisions.npz") as file:
            np.savez(file, **dataclasses.asdict(decisions))
        return decisions

    def _near_pairs(self, corpus: duplicates_stage.Corpus, exact: np.ndarray) -> np.ndarray:
        settings = self.recipe.duplicates
        folder = self.stages / DECISIONS
        with atomic_write(folder / "exact.npy") as file:
            np.save(file, exact)
        shared = duplicates_stage.BandSettings(corpus, settings, folder / "exact.npy")
        bands = [Unit(f"all/{band:04d}", 1, band) for band in range(settings.bands)]
        with Progress("looking for near duplicates", settings.bands, "bands") as progress:
            self.engine.run(bands, duplicates_stage.find_band_pairs, shared, self.stages / BANDS, progress)
        from pangu_alpha.data.dedup.bands import unique_pairs

        pairs = unique_pairs([np.load(self.stages / BANDS / unit.name / "pairs.npy") for unit in bands])
        parts = [
            Unit(f"all/{number:06d}", len(part), part) for number, part in enumerate(duplicates_stage.chunks(pairs))
        ]
        with Progress("checking pairs", len(pairs), "pairs") as progress:
            self.engine.run(parts, duplicates_stage.measure_pairs, shared, self.stages / PAIRS, progress)
        measured = [np.load(self.stages / PAIRS / unit.name / "jaccard.npy") for unit in parts]
        similarity = np.concatenate(measured) if measured else np.zeros(0, np.float32)
        with atomic_write(folder / "pairs.npz") as file:
            np.savez(file, pairs=pairs, jaccard=similarity)
        return pairs[similarity >= np.float32(settings.threshold)]

    def run_select(self, decisions: duplicates_stage.Decisions) -> list[Path]:
        """Write the documents that stay; their folders in order."""
        corpus, settings = self.corpus(), self.recipe.duplicates
        shared = SelectSettings(settings.paragraphs, self.recipe.packing.held_out_share)
        stays = decisions.kept == np.arange(corpus.documents)

        def units() -> Iterator[Unit]:
            paragraph = 0
            for number, folder in enumerate(corpus.folders):
                count = len(duplicates_stage.numbers_of(folder)["paragraphs"])
                selection = Selection(
                    folder,
                    self.source_of(folder),
                    stays[corpus.starts[number] : corpus.starts[number + 1]],
                    decisions.paragraph_gone[paragraph : paragraph + count],
                )
                paragraph += count
                yield Unit(f"{folder.parent.name}/{folder.name}", 1, selection)

        with Progress("keeping documents", len(corpus.folders), "batches") as progress:
            self.engine.run(units(), select, shared, self.stages / SELECT, progress)
        return self.results_of(SELECT)

    def run_tokens(self, selected: list[Path], vocabulary: Path) -> list[Path]:
        """Ids of all documents; their folders in order."""
        units = [Unit(f"{folder.parent.name}/{folder.name}", _out_bytes(folder), folder) for folder in selected]
        with Progress("tokenizing", sum(unit.size for unit in units) / 1e6, "MB") as progress:
            self.engine.run(units, tokenize, vocabulary, self.stages / TOKENS, _InMegabytes(progress))
        return self.results_of(TOKENS)

    def results_of(self, stage: str) -> list[Path]:
        """Folders of a stage's results, one for each cleaned batch."""
        return [self.stages / stage / folder.parent.name / folder.name for folder in self.clean_batches()]

    def lock(self) -> DirectoryLock:
        """The right to write into the output."""
        return DirectoryLock(self.output / "lock", "or give this run another output")


class _InMegabytes(Progress):
    """Passes bytes on as megabytes."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner

    def advance(self, amount: float = 1) -> None:
        self._inner.advance(amount / 1e6)


def _out_bytes(folder: Path) -> int:
    size: int = json.loads((folder / COUNTS).read_text(encoding="utf-8"))["out"]["bytes"]
    return size
