"""The data factory's rules, readers and near duplicates on one core, beside published figures.

Limits: whole cleaning at ten times the paper's platform; signatures beside datatrove's first MinHash step.  The paper
cleaned 20 TB in 70 h on 8 nodes of, as read here, 352 cores: 20e12 / (70 * 3600) / 352 = 0.23 MB/s a core.  datatrove:
0.78 to 0.91 MB/s a core (its issue 298).  Those are their authors' figures, of other machines and text; ours are
processor seconds of one process here.

    python benchmarks/data_factory.py [CORPUS]

CORPUS is a folder whose folders are sources; without one the quickstart's text and made-up pages are taken.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from machine import describe_machine

from pangu_alpha.data.dedup.minhash import signatures
from pangu_alpha.data.dedup.shingles import essences, shingles_of
from pangu_alpha.data.demo_pages import DEMO_PAGES, write_demo_pages
from pangu_alpha.data.document import Document, to_batch
from pangu_alpha.data.factory import FACTORY_KINDS
from pangu_alpha.data.readers import find_files
from pangu_alpha.data.readers.records import documents_of, split
from pangu_alpha.data.recipe import load_recipe, with_corpus

PAPER = 20e12 / (70 * 3600) / 352 / 1e6
DATATROVE = (0.78, 0.91)
RECIPE = Path(__file__).parents[1] / "configs" / "data" / "demo.yaml"


def main() -> None:
    """Measure and print."""
    recipe = load_recipe(RECIPE)
    if len(sys.argv) > 1:
        recipe = with_corpus(recipe, Path(sys.argv[1]))
    print(f"machine: {dataclasses.asdict(describe_machine())}\n")
    raw_bytes = text_bytes = 0
    seconds = {"read": 0.0, "duplicates": 0.0}
    for source in recipe.sources:
        documents: list[Document] = []
        started = time.process_time()
        paths = source.paths
        if DEMO_PAGES in paths:
            paths = (str(write_demo_pages(Path(tempfile.mkdtemp()) / "pages", 400)),)
        for file in find_files(paths, source.name, FACTORY_KINDS):
            for raw in split(file, source.reader):
                raw_bytes += raw.size
                found = documents_of(file, source.name, file.path.name, source.reader, raw)
                documents += [item for item in found if isinstance(item, Document)]
        seconds["read"] += time.process_time() - started
        text_bytes += sum(len(document.text.encode()) for document in documents)
        for start in range(0, len(documents), 2000):
            batch = to_batch(documents[start : start + 2000])
            for entry in recipe.rules:
                if entry.is_for(source.name):
                    started = time.process_time()
                    batch = entry.rule.apply(batch).kept
                    name = entry.rule.name
                    seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
            started = time.process_time()
            shingles, starts = shingles_of(essences(batch["text"].cast(pa.large_string())), recipe.duplicates.run)
            signatures(shingles, starts, recipe.duplicates.permutations)
            seconds["duplicates"] += time.process_time() - started
    rules = sum(value for name, value in seconds.items() if name not in ("read", "duplicates"))
    print(f"{raw_bytes / 1e6:.1f} MB read, {text_bytes / 1e6:.1f} MB of text")
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:28} {value:7.2f} s")
    for name, size, value, peer, limit in [
        ("rules", text_bytes, rules, "the paper's platform", PAPER),
        ("reading and rules", raw_bytes, rules + seconds["read"], "the paper's platform", PAPER),
        ("signatures", text_bytes, seconds["duplicates"], "datatrove's first step", DATATROVE[1]),
    ]:
        speed = size / 1e6 / value
        print(f"{name:18} {speed:6.2f} MB/s a core, {speed / limit:6.1f} x {peer} ({limit:.2f} MB/s a core)")


if __name__ == "__main__":
    main()
