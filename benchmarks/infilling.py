"""How well trained models fill one masked token in the middle of a held-out sentence.

    python benchmarks/infilling.py RUN [RUN ...] [--sentences 500] [--left 1]

Every run is asked twice for the same tokens: given the left side alone, as any left-to-right model can be, and given
both sides, the right one entering first with its own positions, as `pangu-alpha generate --infill` does it.  A model
that never saw random order can be asked the second way too.  Prints a table (mean negative log-probability in nats,
share of right first guesses, held-out perplexity in sequential order) and, as its last line, the same as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pangu_alpha.cli.common import format_table
from pangu_alpha.data.dataset import read_records
from pangu_alpha.data.prepare import prepare
from pangu_alpha.data.prepared import Prepared
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD
from pangu_alpha.inference.language_model import PanguAlpha

SHORTEST, LONGEST = 12, 32
"""Tokens of a sentence, so that it fits into one span of random order."""


def held_out_sentences(prepared: Prepared, end_ids: set[int], number: int) -> list[list[int]]:
    """The first `number` held-out stretches of text, from a document's beginning or a sentence's end to the next."""
    found: list[list[int]] = []
    sentence: list[int] = []
    for ids in _held_out_ids(prepared):
        if ids in (END_OF_TEXT, PAD):
            sentence = []
            continue
        sentence.append(ids)
        if ids in end_ids:
            if SHORTEST <= len(sentence) <= LONGEST:
                found.append(sentence)
            sentence = []
        if len(found) == number:
            break
    return found


def _held_out_ids(prepared: Prepared) -> Iterator[int]:
    for records in read_records(prepared.valid_files, 64):
        for record in records:
            yield from record[1:].tolist()


def ask(model: PanguAlpha, sentences: list[list[int]], both_sides: bool, left: int = 0) -> tuple[float, float]:
    """Mean negative log-probability (nats) and share of right first guesses for each sentence's middle token.

    With `left`, so many tokens of the left side are shown and the sentence begins with them; 0 shows all.
    """
    nats, right = [], []
    for start in range(0, len(sentences), 8):
        part = sentences[start : start + 8]
        width = max(len(sentence) for sentence in part)
        tokens, positions, queries = (np.zeros((len(part), width), np.int64) for _ in range(3))
        asked = []
        for row, sentence in enumerate(part):
            middle = len(sentence) // 2
            if left:
                sentence, middle = sentence[max(0, middle - left) :], min(middle, left)
            places = [*(range(middle + 1, len(sentence)) if both_sides else ()), *range(middle)]
            tokens[row, : len(places)] = [sentence[place] for place in places]
            positions[row, : len(places)] = places
            queries[row, len(places) - 1] = middle - 1
            asked.append((len(places) - 1, sentence[middle]))
        logits = model.logits(tokens, positions, queries, np.zeros_like(tokens)).astype(np.float64)
        for row, (step, token) in enumerate(asked):
            scores = logits[row, step]
            nats.append(float(np.logaddexp.reduce(scores) - scores[token]))
            right.append(int(scores.argmax()) == token)
    return float(np.mean(nats)), float(np.mean(right))


def main() -> None:
    """Measure the runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--left", type=int, default=0, help="tokens of the left side that are shown (default: all)")
    arguments = parser.parse_args()
    rows = []
    for run in arguments.runs:
        model = PanguAlpha.load(run)
        prepared = prepare(model.config, run.parent / "prepared")
        ends = {token for mark in "。!?;" for token in model.tokenizer.encode(mark)[-1:]}
        sentences = held_out_sentences(prepared, ends, arguments.sentences)
        before, left_right = (ask(model, sentences, both, arguments.left) for both in (False, True))
        held_out = model.checkpoint.train_state["held_out"]["after"]
        data = model.config.data
        order = data.order + (f" {data.permuted_share:.0%}" if data.order == "mixed" else "")
        rows.append(
            {
                "run": run.name,
                "order": order,
                "sentences": len(sentences),
                "shown_on_the_left": arguments.left or "all",
                "perplexity": float(np.exp(held_out["nats"] / held_out["tokens"])),
                "left": {"nats": before[0], "right": before[1]},
                "both": {"nats": left_right[0], "right": left_right[1]},
            }
        )
    header = ["run", "order", "held-out perplexity", "left: nats", "right", "both sides: nats", "right"]
    table = [
        [
            row["run"],
            row["order"],
            f"{row['perplexity']:.1f}",
            *(text for way in ("left", "both") for text in (f"{row[way]['nats']:.3f}", f"{row[way]['right']:.1%}")),
        ]
        for row in rows
    ]
    print(format_table(header, table, right=range(2, 7)))
    print(json.dumps(rows, ensure_ascii=False))


if __name__ == "__main__":
    main()
