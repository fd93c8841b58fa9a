"""However large a file or a document is, no process of the factory takes more than 2 GiB."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import some_documents

ROOT = Path(__file__).parents[2]
RECIPE = """
name: large
sources:
  - {name: texts, paths: [FOLDER], documents: blank_line}
rules: [normalise, traditional_to_simplified, mojibake, repeated_paragraphs, chinese_share, length, repetition,
  personal_data]
duplicates: {threshold: 0.6, paragraphs: 30}
tokenizer: {kind: train, vocab_size: 1200, train_characters: 300000}
packing: {seq_length: 256, held_out_share: 0.01}
"""
# The largest resident memory of any process below this one, as the system counts it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
GIB = 1 << 30


def write_text(path: Path, size: int, paragraphs: int, seed: int) -> None:
    """About `size` bytes of made-up sentences, a blank line after each `paragraphs` lines (0: none)."""
    draw = random.Random(seed)
    characters = sorted({character for text in some_documents(400) for character in text if "一" <= character <= "龥"})
    written = line = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            # Drawn characters, so that no two documents are near duplicates.
            text = "。".join("".join(draw.choices(characters, k=draw.randrange(8, 30))) for _ in range(12)) + "。\n"
            line += 1
            if paragraphs and line % paragraphs == 0:
                text += "\n"
            written += file.write(text) * 3  # a Chinese character has three bytes


def peak_of(folder: Path, workers: int) -> tuple[int, dict]:
    """Bytes of the largest process, and the report."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("FOLDER", str(folder / "corpus")), encoding="utf-8")
    words = ["-m", "pangu_alpha.cli.main", "data", "run", "--config", str(recipe), f"output={folder / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, *words, f"workers={workers}"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stderr
    return peak, json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))


def check(folder: Path, file_bytes: int, document_bytes: int, limit: int, workers: int) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    write_text(corpus / "large_file.txt", file_bytes, 4, 1)
    write_text(corpus / "large_document.txt", document_bytes, 0, 2)
    peak, report = peak_of(folder, workers)
    read = next(row for row in report["stages"] if row["stage"] == "read")
    print(f"{file_bytes >> 20} MiB file, {document_bytes >> 20} MiB document: largest process {peak / GIB:.2f} GiB")
    assert read["bytes"] > 0.8 * (file_bytes + document_bytes)
    assert not report["broken"]["records"]
    assert peak < limit


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    check(tmp_path, 2 << 20, 1 << 20, GIB, 1)


@pytest.mark.slow
def test_a_file_of_a_gigabyte_and_a_document_of_200_megabytes(tmp_path: Path) -> None:
    check(tmp_path, 1 << 30, 200 << 20, 2 * GIB, 2)
