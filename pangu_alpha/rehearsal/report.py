"""A dry run as text for a terminal and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod

from pangu_alpha.rehearsal.communication import CommunicationSum, sum_communication
from pangu_alpha.rehearsal.differences import operator_differences, strategy_differences
from pangu_alpha.rehearsal.dry_run import DryRun
from pangu_alpha.rehearsal.graph import RankReadOut
from pangu_alpha.rehearsal.memory import GRADIENT, METHOD, MOMENT, WEIGHT, ParameterSlice

JSON_FORMAT = 1
"""Number of the form of `as_json`."""

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("bytes", 1))


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; columns numbered in `right` are numbers."""

    title: str
    header: tuple[str, ...]
    rows: list[list[str]]
    right: tuple[int, ...] = ()


def tables(run: DryRun, details: bool = False) -> list[Table]:
    """Everything as tables: ranks, memory, then communication, findings and recomputation of each rank.

    With `details` also every parameter, those of equal blocks together.
    """
    result = [ranks_table(run), memory_table(run)]
    for rank in run.ranks:
        result.append(communication_table(rank))
        if details:
            result.append(parameters_table(rank))
        result += findings_tables(rank)
    return result


def headline(run: DryRun) -> str:
    """What was compiled, in one line."""
    return f"{run.config.name} for {run.target}, {run.layout} (MindSpore {run.mindspore})"


def verdict(run: DryRun) -> list[str]:
    """One line for each thing to know: redistributions, strategies, fit."""
    unplanned = sum(len(rank.unplanned) for rank in run.ranks)
    planned = sum(len(rank.redistributions) - len(rank.unplanned) for rank in run.ranks)
    missing = sum(len(rank.without_strategy) for rank in run.ranks)
    full = max(run.ranks, key=lambda rank: rank.memory.total)
    share = full.memory.total / full.memory.device
    size = f"{size_text(full.memory.total)} of {size_text(full.memory.device)}"
    fits = "fits" if all(rank.memory.fits for rank in run.ranks) else "DOES NOT FIT"
    return [
        f"unplanned redistributions  {unplanned} ({planned} planned)",
        f"without a strategy         {missing} operators",
        f"memory                     {fits}: at most {size} ({share:.0%} of a device, on rank {full.rank})",
    ]


def ranks_table(run: DryRun) -> Table:
    """One row a rank: where it stands, what it holds, what compiling took."""
    rows = []
    for rank in run.ranks:
        layers = [layer for layer, stage in enumerate(run.layer_stages) if stage == rank.stage]
        rows.append(
            [
                str(rank.rank),
                str(rank.stage),
                f"{run.layout.data_index(rank.rank)}, {run.layout.model_index(rank.rank)}",
                f"{layers[0]}-{layers[-1]}" if layers else "-",
                f"{weights_of(rank):,}",
                size_text(sent(rank)),
                str(len(rank.unplanned)),
                str(len(rank.without_strategy)),
                f"{rank.seconds:.1f}",
                size_text(rank.peak_bytes),
            ]
        )
    header = (
        "rank", "stage", "data, model", "layers", "weights", "sent a step", "unplanned", "no strategy",
        "compiled in s", "with",
    )  # fmt: skip
    return Table("ranks", header, rows, (0, 1, 4, 5, 6, 7, 8, 9))


def memory_table(run: DryRun) -> Table:
    """One row a rank: bytes by kind, and the fit."""
    unit, factor = size_unit(max(rank.memory.total for rank in run.ranks))

    def text(size: int) -> str:
        return f"{size / factor:,.2f}"

    rows = []
    for rank in run.ranks:
        memory = rank.memory
        kept = f"{memory.kept_at_once} x {text(memory.kept)}" if memory.kept else "-"
        parts = (memory.weights, memory.moments, memory.gradients, memory.idle, memory.activations)
        fit = f"{'fits' if memory.fits else 'DOES NOT FIT'} {size_text(memory.device)}"
        rows.append([str(rank.rank), *map(text, parts), kept, text(memory.total), fit])
    header = (
        "rank", "weights", "moments", "gradients", "idle of these", "activations", "kept micro batches", "total", "",
    )  # fmt: skip
    return Table(f"device memory in {unit}", header, rows, tuple(range(8)))


def communication_table(rank: RankReadOut) -> Table:
    """What the rank sends in one step, by purpose, operator and group."""
    rows = [
        [
            row.purpose,
            row.operator,
            group_text(row),
            str(row.operators),
            f"{row.times:,}",
            f"{row.bytes / 2**20:,.2f}",
        ]
        for row in sum_communication(rank.communication)
    ]
    title = f"communication of rank {rank.rank} in one step"
    return Table(title, ("what for", "operator", "ranks", "in graph", "runs", "MiB"), rows, (3, 4, 5))


def parameters_table(rank: RankReadOut) -> Table:
    """Parameters with the slices of weight, moments and accumulated gradient; those of several blocks are one row."""
    by_weight: dict[str, dict[str, list[ParameterSlice]]] = {}
    for item in rank.parameters:
        by_weight.setdefault(item.weight, {}).setdefault(item.kind, []).append(item)
    rows: dict[tuple[str, ...], list[int]] = {}
    for weight, kinds in by_weight.items():
        items = [item for same in kinds.values() for item in same]
        shards = max(item.optimizer_shards for item in items)
        key = (
            re.sub(r"\bblocks\.\d+\.", "blocks.*.", weight) + (" (idle)" if items[0].idle else ""),
            shape_text(items[0].full_shape),
            *(shape_text(kinds[kind][0].slice_shape) if kind in kinds else "-" for kind in (WEIGHT, MOMENT, GRADIENT)),
            str(shards) if shards > 1 else "-",
        )
        rows.setdefault(key, []).append(sum(item.bytes for item in items))
    text = [[*key, str(len(sizes)), f"{sum(sizes) / 2**20:,.2f}"] for key, sizes in rows.items()]
    header = (
        "parameter", "whole", "weight's slice", "moments' slices", "gradient's slice", "optimizer shards", "of these",
        "MiB in all",
    )  # fmt: skip
    return Table(f"parameters of rank {rank.rank}", header, text, (5, 6, 7))


def findings_tables(rank: RankReadOut) -> list[Table]:
    """Redistributions, operators without a strategy, and what is computed again: a table each, if there is any."""
    result = []
    if rank.redistributions:
        rows = [
            [item.reason or "UNPLANNED", item.operator, f"{item.times:,}", f"{item.bytes / 2**20:,.3f}", item.scope]
            for item in sorted(rank.redistributions, key=lambda item: item.planned)
        ]
        title, columns = f"redistributions of rank {rank.rank}", ("why", "operator", "runs", "MiB each", "scope")
        result.append(Table(title, columns, rows, (2, 3)))
    if rank.without_strategy:
        rows = [[item.operator, str(item.strategy), item.scope] for item in rank.without_strategy]
        header = ("operator", "MindSpore's choice", "scope")
        result.append(Table(f"operators of rank {rank.rank} without a strategy", header, rows))
    if rank.recomputed:
        rows = [[operator, f"{runs:,}"] for operator, runs in rank.recomputed.items()]
        result.append(Table(f"computed again by rank {rank.rank}", ("operator", "runs a step"), rows, (1,)))
    return result


def target_table(ascend: DryRun, gpu: DryRun) -> Table:
    """Operators that the graphs of the two targets run a different number of times, of each rank."""
    rows = [
        [str(first.rank), item.operator, f"{item.first:,}", f"{item.second:,}"]
        for first, second in zip(ascend.ranks, gpu.ranks, strict=True)
        for item in operator_differences(first, second)
    ]
    header = ("rank", "operator", f"runs for {ascend.target}", f"runs for {gpu.target}")
    return Table(f"operators that differ between {ascend.target} and {gpu.target}", header, rows, (0, 2, 3))


def search_table(ours: DryRun, searched: DryRun) -> Table:
    """Where MindSpore's search divides an operator otherwise than our strategies, and what that sends."""
    differences = strategy_differences(ours.ranks[0].strategies, searched.ranks[0].strategies)
    rows = [[item.place, item.first or "-", item.second or "-", str(item.count)] for item in differences]
    header = ("operator", "our strategy", "MindSpore's search", "places")
    title = (
        f"strategies that {searched.config.parallel.search} chose otherwise: rank {ours.ranks[0].rank} sends "
        f"{size_text(sent(searched.ranks[0]))} a step instead of {size_text(sent(ours.ranks[0]))}, with "
        f"{len(searched.ranks[0].unplanned)} redistributions"
    )
    return Table(title, header, rows, (3,))


def as_json(run: DryRun) -> str:
    """Everything of a dry run; sizes in bytes, shapes as lists."""
    layout = asdict(run.layout) | {"devices": run.layout.devices}
    ranks = []
    for rank in run.ranks:
        memory = asdict(rank.memory) | {
            "static": rank.memory.static,
            "total": rank.memory.total,
            "fits": rank.memory.fits,
        }
        ranks.append(
            {
                "rank": rank.rank,
                "stage": rank.stage,
                "weights": weights_of(rank),
                "memory": memory,
                "communication": [asdict(row) for row in sum_communication(rank.communication)],
                "communication_operators": [asdict(item) for item in rank.communication],
                "redistributions": [asdict(item) | {"planned": item.planned} for item in rank.redistributions],
                "without_strategy": [asdict(item) for item in rank.without_strategy],
                "recomputed": dict(rank.recomputed),
                "operators": dict(rank.operators),
                "parameters": [asdict(item) for item in rank.parameters],
                "compile_seconds": rank.seconds,
                "compile_processor_seconds": rank.processor_seconds,
                "compile_peak_bytes": rank.peak_bytes,
            }
        )
    content = {
        "format": JSON_FORMAT,
        "run": run.config.name,
        "target": run.target,
        "mindspore": run.mindspore,
        "layout": layout,
        "layer_stages": run.layer_stages,
        "activation_method": METHOD,
        "in_order": run.in_order,
        "ranks": ranks,
    }
    return json.dumps(content, indent=1) + "\n"


def weights_of(rank: RankReadOut) -> int:
    """Numbers in the rank's slices of the weights."""
    return sum(prod(item.slice_shape) for item in rank.parameters if item.kind == WEIGHT)


def sent(rank: RankReadOut) -> int:
    """Bytes that a rank puts into its communication in one step."""
    return sum(item.bytes_a_step for item in rank.communication)


def size_text(size: float) -> str:
    """Bytes with their unit."""
    unit, factor = size_unit(size)
    return f"{size / factor:,.{2 if factor > 1 else 0}f} {unit}"


def size_unit(largest: float) -> tuple[str, int]:
    """The unit, and its bytes, in which numbers up to `largest` read well."""
    return next(((unit, factor) for unit, factor in _UNITS if largest >= factor), _UNITS[-1])


def group_text(row: CommunicationSum) -> str:
    """The ranks of a group in few letters: 16: 0-15, or 8: 0, 16 … 112."""
    ranks = row.ranks
    if row.operator in ("Send", "Receive"):
        return f"{ranks[0]} to {ranks[1]}"
    steps = {second - first for first, second in pairwise(ranks)}
    if steps == {1}:
        return f"{len(ranks)}: {ranks[0]}-{ranks[-1]}"
    if len(steps) == 1 and len(ranks) > 2:
        return f"{len(ranks)}: {ranks[0]}, {ranks[1]} … {ranks[-1]}"
    return f"{len(ranks)}: {shortened([str(rank) for rank in ranks])}"


def shortened(words: Sequence[str], most: int = 4) -> str:
    """A list in few words."""
    return ", ".join(words) if len(words) <= most else f"{', '.join(words[: most - 1])} … {words[-1]}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as people write it."""
    return " x ".join(map(str, shape)) or "one number"
