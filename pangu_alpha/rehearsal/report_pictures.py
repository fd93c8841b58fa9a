"""Pictures of a dry run as SVG: where layers and ranks sit, what fills a device, who talks to whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import log10

from pangu_alpha.rehearsal.communication import Communication
from pangu_alpha.rehearsal.dry_run import DryRun
from pangu_alpha.rehearsal.graph import RankReadOut
from pangu_alpha.rehearsal.report import size_text

WIDTH = 1080
"""Width of every picture in pixels."""

# Colours that people with colour blindness can tell apart (Okabe and Ito).
_MEMORY = (
    ("weights", "#0072b2"),
    ("moments", "#56b4e9"),
    ("gradients", "#009e73"),
    ("idle copy of the tied table", "#999999"),
    ("activations, estimated", "#e69f00"),
)
_INK, _LINE, _MARK, _SHADE = "#222222", "#bbbbbb", "#d55e00", "#eef3f8"


def stage_map(run: DryRun) -> str:
    """Each stage as a row: its layers, and its ranks as a grid of data by model parallelism; compiled ones marked."""
    layout = run.layout
    cell = min(40.0, 720 / layout.devices_per_stage)
    across, row, left = layout.model_parallel * layout.data_parallel, 46, 330
    compiled = {rank.rank for rank in run.ranks}
    shapes = []
    for stage in range(layout.pipeline_stages):
        top = stage * row + 26
        shapes.append(_box(0, top, left - 20, row - 8, _SHADE, _stage_contents(run, stage)))
        shapes.append(_text(10, top + 16, f"stage {stage}", bold=True))
        shapes.append(_text(10, top + 32, _stage_contents(run, stage)))
        first = stage * layout.devices_per_stage
        shapes.append(_box(left, top, across * cell, 22, "#ffffff", f"ranks {first} to {first + across - 1}", _LINE))
        for group in range(1, layout.data_parallel):
            x = left + group * layout.model_parallel * cell
            shapes.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + 22}" stroke="{_LINE}"/>')
        for rank in sorted(compiled):
            if layout.stage_of(rank) == stage:
                x = left + (rank - first) * cell
                shapes.append(_box(x, top, max(cell, 3), 22, _MARK, f"rank {rank}, compiled"))
        shapes.append(_text(left, top + 35, f"ranks {first} to {first + layout.devices_per_stage - 1}", small=True))
    title = f"{layout.data_parallel} data-parallel groups of {layout.model_parallel} model-parallel ranks each"
    shapes.append(_text(left, 14, title))
    return _picture(layout.pipeline_stages * row + 30, shapes, "stages and ranks")


def memory_bars(ranks: Sequence[RankReadOut]) -> str:
    """One bar a rank: what fills the device, and a line where the device ends (left out where that is far away)."""
    left, row = 90, 34
    widest = max(rank.memory.total for rank in ranks)
    device = ranks[0].memory.device
    near = device < 20 * widest
    if near:
        widest = max(widest, device)
    scale = (WIDTH - left - 180) / widest
    shapes = []
    for number, (name, colour) in enumerate(_MEMORY):
        shapes.append(_box(left + number * 190, 2, 12, 12, colour, name))
        shapes.append(_text(left + number * 190 + 17, 13, name, small=True))
    for number, rank in enumerate(ranks):
        memory, top, x = rank.memory, 28 + number * row, float(left)
        shapes.append(_text(0, top + 16, f"rank {rank.rank}"))
        trained = (memory.weights, memory.moments, memory.gradients)
        used = sum(trained)
        # The idle copies are part of the three: each gives up its share of them.
        parts = [round(size * (1 - memory.idle / used)) if used else 0 for size in trained]
        for (name, colour), size in zip(_MEMORY, (*parts, memory.idle, memory.activations), strict=True):
            shapes.append(_box(x, top, size * scale, 22, colour, f"{name}: {size_text(size)}"))
            x += size * scale
        shapes.append(
            _text(x + 6, top + 16, f"{size_text(memory.total)}" + ("" if near else f" of {size_text(device)}"))
        )
        if not near:
            continue
        end = left + device * scale
        colour = _INK if memory.fits else _MARK
        shapes.append(
            f'<line x1="{end:.1f}" y1="{top - 4}" x2="{end:.1f}" y2="{top + 26}" stroke="{colour}" stroke-width="2">'
            f"<title>the device: {size_text(device)}</title></line>"
        )
    return _picture(28 + len(ranks) * row, shapes, "memory of each rank")


def communication_matrix(run: DryRun) -> str:
    """One row for each compiled rank, one column for each rank of the run: bytes a step that they exchange.

    A collective's bytes are spread over the other ranks of its group.  Darker is more, on a logarithmic scale.
    """
    left, row, top = 90, max(14, min(26, 400 // len(run.ranks))), 40
    devices = run.layout.devices
    cell = (WIDTH - left) / devices
    rows = [(rank.rank, exchanged(rank.communication, rank.rank)) for rank in run.ranks]
    most = max((size for _, peers in rows for size in peers.values()), default=1.0)
    least = max(1.0, min((size for _, peers in rows for size in peers.values() if size >= 1), default=1.0))
    shapes = [
        _text(left, 14, f"ranks 0 to {devices - 1}; from {size_text(least)} (light) to {size_text(most)} (dark) a step")
    ]
    for number, (rank, peers) in enumerate(rows):
        y = top + number * row
        shapes.append(_text(0, y + row * 0.7, f"rank {rank}"))
        shapes.append(_box(left, y, WIDTH - left, row - 2, "#ffffff", "", _LINE))
        for first, last, size in _runs(peers):
            depth = 1.0 if most <= least else (log10(max(size, least)) - log10(least)) / (log10(most) - log10(least))
            who = f"rank {first}" if first == last else f"ranks {first} to {last}"
            title = f"rank {rank} and {who}: {size_text(size)} a step each"
            width = max(cell * (last - first + 1), 1)
            shapes.append(_box(left + first * cell, y, width, row - 2, _shade(depth), title))
        shapes.append(_box(left + rank * cell, y, max(cell, 1.5), row - 2, _MARK, f"rank {rank} itself"))
    for stage in range(run.layout.pipeline_stages):
        x = left + stage * run.layout.devices_per_stage * cell
        bottom = top + len(rows) * row
        shapes.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{_LINE}"/>')
        shapes.append(_text(x + 2, top - 8, str(stage) if stage else "stage 0", small=True))
    return _picture(top + len(rows) * row + 4, shapes, "who talks to whom")


def exchanged(items: Iterable[Communication], rank: int) -> dict[int, float]:
    """Other rank -> bytes a step that `rank` exchanges with it, a collective's spread evenly over its group."""
    peers: dict[int, float] = {}
    for item in items:
        others = [other for other in item.ranks if other != rank]
        for other in others:
            peers[other] = peers.get(other, 0.0) + item.bytes_a_step / len(others)
    return peers


def _stage_contents(run: DryRun, stage: int) -> str:
    layers = [layer for layer, its in enumerate(run.layer_stages) if its == stage]
    last = len(run.layer_stages) - 1
    words = ["embedding"] if stage == 0 else []
    blocks = [layer for layer in layers if layer != last or not run.config.model.query_layer]
    if blocks:
        words.append(f"layers {blocks[0]}-{blocks[-1]}" if len(blocks) > 1 else f"layer {blocks[0]}")
    if stage == run.layout.pipeline_stages - 1:
        words.append("query layer, norm, head" if run.config.model.query_layer else "norm, head")
    return ", ".join(words)


def _runs(peers: dict[int, float]) -> list[tuple[int, int, float]]:
    """Neighbouring ranks with the same bytes as one: (first, last, bytes)."""
    result: list[tuple[int, int, float]] = []
    for rank, size in sorted(peers.items()):
        if result and result[-1][1] == rank - 1 and result[-1][2] == size:
            result[-1] = (result[-1][0], rank, size)
        else:
            result.append((rank, rank, size))
    return result


def _shade(depth: float) -> str:
    light, dark = (214, 230, 244), (8, 48, 107)
    return "#" + "".join(f"{round(a + (b - a) * depth):02x}" for a, b in zip(light, dark, strict=True))


def _box(x: float, y: float, width: float, height: float, colour: str, title: str, line: str = "none") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}" '
        f'stroke="{line}">{inner}</rect>'
    )


def _text(x: float, y: float, text: str, bold: bool = False, small: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{11 if small else 13}"{weight}>{escape(text)}</text>'


def _picture(height: float, shapes: list[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}" fill="{_INK}" '
        f'font-family="sans-serif">\n' + "\n".join(shapes) + "\n</svg>"
    )
