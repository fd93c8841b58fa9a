"""The data factory's report as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #1c2733; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dde5 }
table { border-collapse: collapse; margin: .7rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #e6ebf0;
  text-align: right; vertical-align: top } td:first-child, th:first-child, td.text, th.text { text-align: left }
details { margin: .3rem 0 } summary { cursor: pointer } .sample { white-space: pre-wrap; background: #f5f8fa;
  padding: .5rem .8rem; margin: .3rem 0; border-left: 3px solid #9db4c8; overflow-wrap: anywhere }
.sample.dropped { border-color: #c0504d } .sample.removed { border-color: #d79b3a } .note { color: #5a6b7b }
svg text { font: 11px system-ui, sans-serif; fill: #5a6b7b } pre { background: #f5f8fa; padding: 1rem; overflow: auto }
"""


def report_page(content: dict[str, Any]) -> str:
    """The page of `report.gather`'s content."""
    parts = [
        f"<h1>Data factory: {escape(content['name'])}</h1>",
        _summary(content),
        "<h2>Stages</h2>", _stages(content["stages"]),
        "<h2>Rules</h2>", _rules(content["rules"]), _lines(content["lines"]),
        "<h2>Lengths of documents, characters</h2>", _lengths(content["lengths"]),
        "<h2>Duplicates</h2>", _duplicates(content["duplicates"]),
        "<h2>What each rule dropped and kept</h2>", "".join(_samples(rule) for rule in content["rules"]),
        "<h2>Sources and mixture</h2>", _sources(content),
        "<h2>What could not be read</h2>", _broken(content["broken"]),
        "<h2>To run it again</h2>", f"<pre>{escape(json.dumps(content['again'], ensure_ascii=False, indent=1))}</pre>",
    ]  # fmt: skip
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>Data factory: {escape(content['name'])}</title>"
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "–"


def _summary(content: dict[str, Any]) -> str:
    stages = content["stages"]

    def total(stage: str, key: str) -> int:
        return sum(int(row.get(key, 0)) for row in stages if row["stage"] == stage)

    speed, samples = content["speed"], content["samples"]
    return (
        f"<p>{_number(total('read', 'documents'))} documents ({total('read', 'bytes') / 1e6:,.1f} MB) were read; "
        f"{_number(total('cleaned', 'documents'))} came through the rules, {_number(total('kept', 'documents'))} "
        f"({total('kept', 'bytes') / 1e6:,.1f} MB, {_share(total('kept', 'bytes'), total('read', 'bytes'))}) were kept: "
        f"{_number(total('tokenized', 'tokens'))} tokens, {_number(samples['training'])} training samples, "
        f"{_number(samples['held out'])} held out.</p><p class='note'>The rules took {speed['rule_seconds']} s of one core: "
        f"{speed['megabytes_a_second_a_core']} MB/s, {_number(speed['documents_a_second_a_core'])} documents/s a core. "
        f"All stages together: {content['seconds']} s.</p>"
    )


def _stages(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        lost = ", ".join(f"{count:,} {name}" for name, count in row.get("lost", {}).items() if count)
        cells.append([
            escape(row["source"]), escape(row["stage"]), _number(row.get("documents", 0)),
            _number(row["characters"]) if "characters" in row else "", f"{row['bytes'] / 1e6:,.2f}" if "bytes" in row else "",
            _number(row["tokens"]) if "tokens" in row else "", lost,
        ])  # fmt: skip
    return _table(["source", "stage", "documents", "characters", "MB", "tokens", "left out here"], cells)


def _rules(rules: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            escape(rule["rule"]), _number(rule["documents"]), _number(rule["dropped"]),
            _share(rule["dropped"], rule["documents"]), _number(rule["changed"]), _number(rule["pieces"]),
            _share(rule["removed_characters"], rule["characters"]),
            f"{rule['characters'] * 3 / 1e6 / rule['seconds']:,.1f}" if rule["seconds"] else "–",
        ]
        for rule in rules
    ]  # fmt: skip
    return _table(
        [
            "rule",
            "documents in",
            "dropped",
            "share",
            "changed",
            "pieces taken out",
            "characters taken out",
            "MB/s a core",
        ],
        rows,
    )


def _lines(shares: dict[str, Any] | None) -> str:
    """How well the rules for menus and advertisements do on pages of which every line is labelled."""
    if shares is None:
        return ""
    return (
        f"<p class='note'>On {shares['lines']:,} labelled lines of made-up pages: {shares['menu_left']:.1%} of the lines of menus "
        f"and {shares['advertisements_left']:.1%} of those of advertisements are left, {shares['text_lost']:.1%} of the lines of "
        "text are lost.</p>"
    )


def _bars(counts: Sequence[int], labels: Sequence[str], color: str, title: str) -> str:
    """A histogram as a picture."""
    width, height, step = 14, 110, 6
    top = max([*counts, 1])
    bars = "".join(
        f"<rect x='{place * width}' y='{height - height * count / top:.1f}' width='{width - 2}' "
        f"height='{height * count / top:.1f}' fill='{color}'><title>{escape(labels[place])}: {count:,}</title></rect>"
        for place, count in enumerate(counts)
    )
    marks = "".join(
        f"<text x='{place * width}' y='{height + 14}'>{escape(labels[place])}</text>"
        for place in range(0, len(counts), step)
    )
    return (
        f"<figure><figcaption>{escape(title)} (highest bar: {top:,})</figcaption><svg role='img' "
        f"viewBox='0 -2 {len(counts) * width + 40} {height + 20}' width='{len(counts) * width + 40}'>{bars}{marks}</svg></figure>"
    )


def _lengths(lengths: dict[str, Any]) -> str:
    labels = [_number(edge) for edge in lengths["edges"][:-1]]
    colors = {"read": "#9db4c8", "cleaned": "#5b87ab", "kept": "#2f5d87"}
    return "".join(_bars(lengths[name], labels, color, name) for name, color in colors.items())


def _values(rule: dict[str, Any]) -> str:
    """Histogram of what a rule measured, on its logarithmic scale."""
    values = {int(name): count for name, count in rule["values"].items()}
    positive = [name for name in values if name > -80]
    if not positive:
        return ""
    places = range(min(positive), max(positive) + 1)
    labels = [f"{10 ** (place / 8):.3g}" for place in places]
    zero = f", {values[-80]:,} of 0" if -80 in values else ""
    return _bars([values.get(place, 0) for place in places], labels, "#7a9a5b", f"measured{zero}")


def _samples(rule: dict[str, Any]) -> str:
    parts = []
    for kind in ("dropped", "removed", "kept"):
        entries = rule["samples"][kind]
        if not entries:
            continue
        shown = "".join(
            f"<div class='sample {kind}'><span class='note'>{escape(entry['id'])}{_measured(entry)}</span>\n"
            f"{escape(entry['text'])}</div>"
            for entry in entries
        )
        parts.append(f"<details><summary>{len(entries)} {kind}, at random</summary>{shown}</details>")
    return f"<h3 id='{rule['rule']}'>{escape(rule['rule'])}</h3>{_values(rule)}{''.join(parts)}"


def _measured(entry: dict[str, Any]) -> str:
    if entry.get("value") is None:
        return ""
    threshold = f", threshold {entry['threshold']:.4g}" if entry.get("threshold") is not None else ""
    return f": measured {entry['value']:.4g}{threshold}"


def _duplicates(found: dict[str, Any]) -> str:
    clusters = _table(
        ["documents in a cluster", "clusters"], [[size, _number(count)] for size, count in found["clusters"].items()]
    )
    bins = [f"{place / 20:.2f}" for place in range(20)]
    pairs = _bars(
        found["pairs"]["jaccard"],
        bins,
        "#8a6fb0",
        f"Jaccard similarity of {found['pairs']['measured']:,} candidate pairs",
    )
    largest = "".join(
        f"<details><summary>{cluster['size']} documents, kept: {escape(cluster['kept']['id'])}</summary>"
        + "".join(
            f"<div class='sample{'' if place == 0 else ' dropped'}'><span class='note'>{escape(member['id'])}</span>\n{escape(member['text'])}</div>"
            for place, member in enumerate([cluster["kept"], *cluster["others"]])
        )
        + "</details>"
        for cluster in found["largest"]
    )
    return (
        f"<p>{found['exact']:,} exact and {found['near']:,} near duplicates (Jaccard from {found['threshold']}) were left out, "
        f"and {found['paragraphs']:,} paragraphs.</p>{_audit(found['audit'])}{clusters}{pairs}<h3>Largest clusters</h3>{largest}"
    )


def _audit(audit: dict[str, Any] | None) -> str:
    """How many near duplicates are found, beside a comparison of all with all."""
    if audit is None:
        return ""
    return (
        f"<p class='note'>Audit: of {audit['documents']:,} documents, {audit['planted']:,} of them changed copies, compared all "
        f"with all, {audit['true_pairs']:,} pairs are near duplicates; precision {audit['precision']:.3f}, recall "
        f"{audit['recall']:.3f}.</p>"
    )


def _sources(content: dict[str, Any]) -> str:
    total = sum(part["weight"] for part in content["mixture"]) or 1.0
    weights = {part["source"]: part["weight"] / total for part in content["mixture"]}
    rows = [
        [
            escape(source["name"]), escape(source["licence"]), _number(source["files"]), _number(source["records"]),
            f"{source['raw_bytes'] / 1e6:,.1f}", f"{weights[source['name']]:.2%}" if source["name"] in weights else "as it is",
        ]
        for source in content["sources"]
    ]  # fmt: skip
    return _table(["source", "licence", "files", "records", "MB", "share of training samples"], rows)


def _broken(broken: dict[str, Any]) -> str:
    files = "".join(f"<li>{escape(line)}</li>" for line in broken["files"])
    shown = _table(["record", "why"], [[escape(item["place"]), escape(item["reason"])] for item in broken["shown"]])
    return f"<p>{broken['records']:,} records, {len(broken['files'])} files.</p><ul>{files}</ul>" + (
        shown if broken["shown"] else ""
    )
