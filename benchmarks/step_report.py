"""What `train_step.py` found, as a table and as plain values for JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from machine import Machine

from pangu_alpha.config import Config
from pangu_alpha.model_table import short_count, total_parameters
from pangu_alpha.train.flops import model_flops_per_token

SHORT = {"V": "vocab_size", "H": "hidden_size", "L": "num_layers", "N": "num_heads", "S": "seq_length"}
"""Settings that make up a model's size, by the letter that the table gives them."""


@dataclass(frozen=True)
class Times:
    """What was measured of one worker, each round."""

    seconds: list[float]
    """Of a step."""
    others: list[float | None]
    """Share of the machine that other processes had meanwhile."""
    peaks: list[float]
    """FLOP/s of its library's best matrix product."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as a peer: of the two times of each round, over the rounds."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Row:
    """One worker's numbers."""

    name: str
    median: float
    """Seconds of a step."""
    minimum: float
    """Seconds of a step, in the best round."""
    spread: float
    """Distance of the quartiles over the median."""
    tokens_per_second: float
    """From the median."""
    flops: float
    """FLOP/s of the model's mathematics, from the median."""
    share_of_peak: float
    """`flops` over the machine's peak."""
    ratios: dict[str, Ratio]
    """Speed relative to each peer."""
    others: float | None
    """Share of the machine that other processes had meanwhile, mean; None where it cannot be told."""
    start_seconds: float
    """Building, compiling and the checked steps."""
    seconds: list[float]
    """Of a step, each round."""


@dataclass(frozen=True)
class Report:
    """Everything that the table shows, and the single times."""

    machine: Machine
    versions: dict[str, str]
    threads: int
    """PyTorch's."""
    name: str
    """Of the configuration."""
    parameters: int
    shape: dict[str, int]
    tokens_per_step: int
    flops_per_token: float
    documents_apart: bool
    """Whether tokens see their own document alone, on both sides."""
    attention: list[str]
    """Operators that PyTorch's fused attention took."""
    losses: dict[str, list[float]]
    """Of the first steps, by worker."""
    loss_difference: float
    """Largest relative difference of those."""
    peak: float
    """FLOP/s of the best matrix product of any library at hand."""
    peaks: dict[str, float]
    """The best product of each worker's library."""
    rows: list[Row]


def summarize(
    config: Config,
    machine: Machine,
    told: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, Times],
    loss_difference: float,
) -> Report:
    """The report of a run; every mapping is by worker, this project's first.

    Args:
        config: what was trained.
        machine: where.
        told: what each worker told when it was ready.
        times: what was measured of each.
        loss_difference: of the first losses.
    """
    model = config.model
    tokens, flops_per_token = config.train.batch_size * model.seq_length, model_flops_per_token(model)
    peak = max(max(each.peaks) for each in times.values())
    peers = list(told)[1:]
    rows = []
    for name, own in times.items():
        seconds, others = own.seconds, [share for share in own.others if share is not None]
        median = statistics.median(seconds)
        quarters = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
        speed = tokens / median
        ratios = {peer: _ratio(times[peer].seconds, seconds) for peer in peers if peer != name}
        rows.append(Row(
            name, median, min(seconds), (quarters[2] - quarters[0]) / median, speed, speed * flops_per_token,
            speed * flops_per_token / peak, ratios, statistics.mean(others) if others else None,
            told[name]["start_seconds"], list(seconds),
        ))  # fmt: skip
    peer = told[peers[0]]
    versions = {key: version for worker in told.values() for key, version in worker["versions"].items()}
    shape = {key: getattr(model, key) for key in SHORT.values()}
    return Report(
        machine, versions, peer["threads"], config.name, total_parameters(model), shape, tokens, flops_per_token,
        config.data.reset_attention, list(peer["attention"]), {name: list(w["losses"]) for name, w in told.items()},
        loss_difference, peak, {name: max(each.peaks) for name, each in times.items()}, rows,
    )  # fmt: skip


def _ratio(peer: Sequence[float], own: Sequence[float]) -> Ratio:
    ratios = [theirs / ours for theirs, ours in zip(peer, own, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def table(report: Report) -> str:
    """The report for people."""
    machine, shape = report.machine, report.shape
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    seen = "its own document alone" if report.documents_apart else "all of its sample before it"
    size = ", ".join(f"{short} {shape[key]}" for short, key in SHORT.items())
    processor = f"{machine.processor}, {machine.cores} cores ({machine.widest_vectors})"
    work = f"{report.tokens_per_step} tokens a step, {report.flops_per_token / 1e6:.1f} MFLOP a token"
    checked = len(next(iter(report.losses.values())))
    head = [
        f"machine    {processor}, {machine.system}, load {machine.load}",
        f"versions   {versions}, Python {machine.python}; PyTorch uses {report.threads} threads",
        f"model      {report.name}: {short_count(report.parameters)} parameters, {size}; {work}",
        f"attention  a token sees {seen}; PyTorch takes {', '.join(report.attention)}",
        f"losses     first {checked} steps agree to {report.loss_difference:.1e}",
        "peak       " + ", ".join(f"{value / 1e9:.0f} GFLOP/s {name}" for name, value in report.peaks.items()),
        "",
    ]
    peers = list(report.rows[0].ratios)
    titles = ["", "ms/step", "min", "spread", "tokens/s", "GFLOP/s", "of peak", "others"]
    cells = [[*titles, *(f"x {peer}" for peer in peers)]]
    for row in report.rows:
        ratios = [row.ratios.get(peer) for peer in peers]
        cells.append([
            row.name, f"{row.median * 1e3:.0f}", f"{row.minimum * 1e3:.0f}", f"{row.spread:.1%}",
            f"{row.tokens_per_second:.0f}", f"{row.flops / 1e9:.0f}", f"{row.share_of_peak:.1%}",
            "?" if row.others is None else f"{row.others:.0%}",
            *(f"{r.median:.2f} ({r.lowest:.2f}-{r.highest:.2f})" if r else "1" for r in ratios),
        ])  # fmt: skip
    return "\n".join(head + aligned(cells))


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]  # fmt: skip
