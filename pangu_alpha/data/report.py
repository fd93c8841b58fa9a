"""What the data factory kept, dropped and why: gathered from all batches as one JSON file and one HTML page."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pangu_alpha.data.content_key import package_version
from pangu_alpha.data.dedup.quality import measure_duplicates, plant_duplicates
from pangu_alpha.data.page_lines import measure_demo_pages
from pangu_alpha.data.prepared import HELD_OUT, TRAINING, Prepared
from pangu_alpha.data.recipe import Duplicates
from pangu_alpha.data.report_page import report_page
from pangu_alpha.data.rule_results import LENGTH_EDGES
from pangu_alpha.data.stages.arrow_files import read_batch
from pangu_alpha.data.stages.clean import COUNTS, DOCUMENTS
from pangu_alpha.data.stages.duplicates import EXACT, NEAR, Corpus, Decisions
from pangu_alpha.files import atomic_write

if TYPE_CHECKING:
    from pangu_alpha.data.factory import Factory

PAGE, DATA = "report.html", "report.json"
_BROKEN_SHOWN = 50
_CLUSTERS_SHOWN = 5
PLANTED_PART = 16
"""Of the audited documents one of so many is a changed copy: 312 of 5,000."""
SHORTEST_PLANTED = 100
"""Characters: of a shorter one hardly a change leaves a similarity of 0.6."""
_PACKAGES = ("pangu-alpha", "pyarrow", "numpy", "jieba", "sentencepiece", "opencc", "resiliparse", "mindspore")


def write_report(factory: Factory, decisions: Decisions, prepared: Prepared, seconds: float) -> Path:
    """Write report.json and report.html of a finished run; the page's path."""
    content = gather(factory, decisions, prepared, seconds)
    with atomic_write(factory.output / DATA, "w") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
    with atomic_write(factory.output / PAGE, "w") as file:
        file.write(report_page(content))
    return factory.output / PAGE


def gather(factory: Factory, decisions: Decisions, prepared: Prepared, seconds: float) -> dict[str, Any]:
    """Everything that the page shows."""
    cleaned = [_counts(folder) for folder in factory.clean_batches()]
    selected = [_counts(folder) for folder in factory.results_of("3_select")]
    sources = [source.name for source in factory.recipe.sources]
    rules = [entry.rule.name for entry in factory.recipe.rules]
    corpus = factory.corpus()
    return {
        "name": factory.recipe.name,
        "seconds": round(seconds, 1),
        "stages": _stages(sources, cleaned, selected, corpus, decisions, prepared),
        "sources": [
            {
                "name": source.name,
                "licence": source.licence,
                "weight": source.weight,
                "files": sum(item.source == source.name for item in factory.inputs),
                "records": sum(batch["records"] for batch in cleaned if batch["source"] == source.name),
                "raw_bytes": sum(batch["raw_bytes"] for batch in cleaned if batch["source"] == source.name),
            }
            for source in factory.recipe.sources
        ],
        "rules": [_rule(rule, cleaned, sources, factory.recipe.samples) for rule in rules],
        "lengths": {
            "edges": LENGTH_EDGES.tolist(),
            "read": _sum(batch["lengths_in"] for batch in cleaned),
            "cleaned": _sum(batch["lengths_out"] for batch in cleaned),
            "kept": _sum(batch["lengths_out"] for batch in selected),
        },
        "duplicates": _duplicates(corpus, decisions, factory),
        "speed": _speed(cleaned),
        "lines": vars(measure_demo_pages()) if "navigation" in rules else None,
        "broken": {
            "records": sum(len(batch["broken"]) for batch in cleaned),
            "shown": [broken for batch in cleaned for broken in batch["broken"]][:_BROKEN_SHOWN],
            "files": factory.broken_files,
        },
        "samples": {"training": prepared.train_samples, "held out": prepared.valid_samples},
        "mixture": [vars(part) for part in prepared.train.mixture],
        "again": {
            "recipe": factory.recipe.to_dict(),
            "files": [[item.source, item.place, item.digest] for item in factory.inputs],
            "tokenizer_sha256": prepared.tokenizer_sha256,
            "fingerprint": prepared.fingerprint,
            "versions": {"python": platform.python_version()} | {name: package_version(name) for name in _PACKAGES},
        },
    }


def _counts(folder: Path) -> dict[str, Any]:
    counts: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
    return counts


def _sum(rows: Iterable[list[int]]) -> list[int]:
    total = np.zeros(len(LENGTH_EDGES) - 1, np.int64)
    for row in rows:
        total += row
    return [int(count) for count in total]


def _amount(batches: list[dict[str, Any]], side: str, source: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for batch in batches:
        if batch["source"] == source:
            total.update(batch[side])
    return total


def _stages(
    sources: list[str],
    cleaned: list[dict[str, Any]],
    selected: list[dict[str, Any]],
    corpus: Corpus,
    decisions: Decisions,
    prepared: Prepared,
) -> list[dict[str, Any]]:
    """A row for each stage and source: what came in, what went out."""
    rows = []
    reasons = {EXACT: "exact duplicates", NEAR: "near duplicates"}
    owner = np.repeat(np.array(corpus.sources, np.int64), np.diff(corpus.starts))
    for number, source in enumerate(sources):
        read, clean = _amount(cleaned, "in", source), _amount(cleaned, "out", source)
        kept = _amount(selected, "out", source)
        tokens = {
            side: sum(count.tokens for count in prepared.counts if (count.source, count.side) == (source, side))
            for side in (TRAINING, HELD_OUT)
        }
        own = owner == number
        lost = {name: int((own & (decisions.reason == reason)).sum()) for reason, name in reasons.items()}
        rows += [
            {"stage": "read", "source": source, **read},
            {"stage": "cleaned", "source": source, **clean},
            {"stage": "kept", "source": source, **kept, "lost": lost},
            {"stage": "tokenized", "source": source, "documents": kept["documents"], "tokens": sum(tokens.values())},
        ]
    return rows


def _rule(rule: str, cleaned: list[dict[str, Any]], sources: list[str], samples: int) -> dict[str, Any]:
    """One rule over all batches."""
    own = [(batch["source"], result) for batch in cleaned for result in batch["rules"] if result["rule"] == rule]
    sums = (
        "documents", "characters", "dropped", "dropped_characters", "changed", "removed_characters", "pieces",
        "seconds",
    )  # fmt: skip
    total = {name: sum(result[name] for _, result in own) for name in sums}
    values: Counter[str] = Counter()
    for _, result in own:
        values.update(result["values"])
    shown = {
        kind: sorted(
            (entry for _, result in own for entry in result["samples"][kind]), key=lambda entry: entry["rank"]
        )[:samples]
        for kind in ("dropped", "kept", "removed")
    }
    by_source = {
        source: {
            name: sum(result[name] for place, result in own if place == source) for name in ("documents", "dropped")
        }
        for source in sources
    }
    return {"rule": rule, **total, "values": dict(values), "samples": shown, "by_source": by_source}


def _duplicates(corpus: Corpus, decisions: Decisions, factory: Factory) -> dict[str, Any]:
    """Clusters by size, the largest shown, and how the measured pairs lie."""
    sizes = np.bincount(decisions.kept, minlength=max(1, corpus.documents))
    clusters = sizes[sizes > 1]
    histogram = {str(size): int(count) for size, count in zip(*np.unique(clusters, return_counts=True), strict=True)}
    order = [int(document) for document in np.argsort(-sizes, kind="stable")[:_CLUSTERS_SHOWN] if sizes[document] > 1]
    path = factory.stages / "2_duplicates" / "pairs.npz"
    similarity = np.load(path)["jaccard"] if path.exists() else np.zeros(0, np.float32)
    measured, _ = np.histogram(similarity, np.linspace(0, 1, 21))
    return {
        "threshold": factory.recipe.duplicates.threshold,
        "exact": int((decisions.reason == EXACT).sum()),
        "near": int((decisions.reason == NEAR).sum()),
        "paragraphs": int(decisions.paragraph_gone.sum()),
        "clusters": histogram,
        "largest": [_cluster(corpus, decisions, document) for document in order],
        "pairs": {"measured": len(similarity), "jaccard": measured.tolist()},
        "audit": _audit(corpus, factory.recipe.duplicates),
    }


def _audit(corpus: Corpus, duplicates: Duplicates) -> dict[str, Any] | None:
    """Precision and recall of near duplicates on some documents with planted ones; None where none is asked for."""
    if not duplicates.audit or not duplicates.near:
        return None
    wanted = duplicates.audit - duplicates.audit // PLANTED_PART
    texts: list[str] = []
    for number in np.random.default_rng(0).permutation(len(corpus.folders)):
        found = read_batch(corpus.folders[int(number)] / DOCUMENTS)["text"].to_pylist()
        texts += [text for text in found if len(text) >= SHORTEST_PLANTED]
        if len(texts) >= wanted:
            break
    texts = texts[:wanted]
    planted = len(texts) // (PLANTED_PART - 1)
    if not planted:
        return None
    return dataclasses.asdict(measure_duplicates(plant_duplicates(texts, planted, 0), duplicates)) | {
        "planted": planted
    }


def _cluster(corpus: Corpus, decisions: Decisions, document: int) -> dict[str, Any]:
    members = np.flatnonzero(decisions.kept == document)

    def described(number: int) -> dict[str, str]:
        batch, row = corpus.place(number)
        found = read_batch(corpus.folders[batch] / DOCUMENTS).slice(row, 1).to_pylist()[0]
        return {"id": found["id"], "text": found["text"][:200]}

    others = [described(int(member)) for member in members if member != document][:4]
    return {"size": len(members), "kept": described(document), "others": others}


def _speed(cleaned: list[dict[str, Any]]) -> dict[str, float]:
    """Of the rules alone, in processor time: what one core does."""
    seconds = sum(result["seconds"] for batch in cleaned for result in batch["rules"])
    size, documents = sum(batch["in"]["bytes"] for batch in cleaned), sum(batch["in"]["documents"] for batch in cleaned)
    return {
        "rule_seconds": round(seconds, 2),
        "megabytes": round(size / 1e6, 2),
        "megabytes_a_second_a_core": round(size / 1e6 / seconds, 2) if seconds else 0.0,
        "documents_a_second_a_core": round(documents / seconds, 1) if seconds else 0.0,
    }
