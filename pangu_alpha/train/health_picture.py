"""Layer × step heat maps of a run's health in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pangu_alpha.files import atomic_write
from pangu_alpha.train.health import LayerHealth, layer_order

MOST_COLUMNS = 400
"""Samples that a heat map shows at most; of more, every so manieth."""


@dataclass
class HealthHistory:
    """What the picture shows."""

    steps: list[int] = field(default_factory=list)
    """Step of each sample."""
    samples: list[Mapping[str, LayerHealth]] = field(default_factory=list)
    """The layers at each sample."""
    heads: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Attention entropy of every head at the newest sample."""

    def add(self, step: int, layers: Mapping[str, LayerHealth], heads: Mapping[str, Sequence[float]]) -> None:
        """Take in one sample."""
        self.steps.append(step)
        self.samples.append(layers)
        self.heads = heads

    def table(self, quantity: str) -> tuple[list[str], NDArray[np.float64]]:
        """Layers that have a quantity (a field of LayerHealth), and float64 [layers, samples], NaN where missing."""
        layers = layer_order([layer for sample in self.samples for layer in sample])
        missing = LayerHealth()
        values = [[getattr(sample.get(layer, missing), quantity) for sample in self.samples] for layer in layers]
        table = np.asarray(values, dtype=np.float64).reshape(len(layers), len(self.steps))
        known = ~np.isnan(table).all(axis=1)
        return [layer for layer, keep in zip(layers, known, strict=True) if keep], table[known]


def draw_health(history: HealthHistory, path: str | Path, title: str = "") -> None:
    """Draw the six questions into a PNG that appears whole.  Needs no display.

    Raises:
        PanguError: the disk is full, read-only or closed to this user.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm, Normalize, PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).ravel()

    def over_steps(place: int, quantity: str, question: str, legend: str, colours: str, scale: Any) -> None:
        layers, table = history.table(quantity)
        _heat_map(figure, panels[place], layers, table, history.steps, question, legend, colours, scale)

    over_steps(0, "gradient_norm", "Does the gradient reach every layer?", "gradient norm", "viridis", _log_scale)
    over_steps(
        1,
        "update_ratio",
        "Does every layer learn at a sane pace?",
        "update / weight of a step (pale: 0.001)",
        "RdYlBu_r",
        lambda _: LogNorm(1e-5, 1e-1),
    )
    over_steps(
        2,
        "dead_share",
        "Does every weight take part?",
        "share of weights with next to no gradient",
        "OrRd",
        lambda _: PowerNorm(0.5, 0.0, 1.0),
    )
    over_steps(3, "activation_rms", "Is the signal strong enough?", "rms of the layer's output", "viridis", _log_scale)
    over_steps(
        4,
        "attention_entropy",
        "Does attention choose?",
        "entropy (0: one position, 1: all alike)",
        "magma",
        lambda _: Normalize(0.0, 1.0),
    )
    _draw_heads(figure, panels[5], history)
    for axes in panels[:5]:
        axes.set_xlabel("step")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _log_scale(table: NDArray[np.float64]) -> Any:
    from matplotlib.colors import LogNorm

    positive = table[np.isfinite(table) & (table > 0)]
    if not positive.size:
        return LogNorm(0.1, 1.0)
    # At least one decade, so that layers that are alike look alike.
    middle = float(np.sqrt(positive.min() * positive.max()))
    return LogNorm(min(positive.min(), middle / 10**0.5), max(positive.max(), middle * 10**0.5))


def _heat_map(
    figure: Any,
    axes: Any,
    rows: list[str],
    table: NDArray[np.float64],
    steps: Sequence[int],
    question: str,
    legend: str,
    colours: str,
    scale: Any,
) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_title(question, loc="left", fontsize=11, fontweight="bold")
    if not rows:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", color="grey", transform=axes.transAxes)
        axes.set_axis_off()
        return
    stride = -(-len(steps) // MOST_COLUMNS)
    shown, kept = table[:, ::stride], np.asarray(steps[::stride], dtype=np.float64)
    ends = (kept[:-1] + kept[1:]) / 2
    half = (kept[1] - kept[0]) / 2 if len(kept) > 1 else 0.5
    edges = np.concatenate([[kept[0] - half], ends, [kept[-1] + half]])
    axes.set_facecolor("#d9d9d9")  # where there is no number
    image = axes.pcolormesh(
        edges,
        np.arange(len(rows) + 1) - 0.5,
        np.ma.masked_invalid(shown),
        cmap=colours,
        norm=scale(table),
        rasterized=True,
    )
    _name_rows(axes, rows)
    bar = figure.colorbar(image, ax=axes, label=legend, pad=0.01)
    if isinstance(image.norm, LogNorm):
        few_decades = float(np.ptp(np.log10(bar.ax.get_ylim()))) < 2.5
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_heads(figure: Any, axes: Any, history: HealthHistory) -> None:
    from matplotlib.colors import Normalize

    layers = layer_order(list(history.heads))
    axes.set_title("Do the heads differ?", loc="left", fontsize=11, fontweight="bold")
    if not layers:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", color="grey", transform=axes.transAxes)
        axes.set_axis_off()
        return
    table = np.full((len(layers), max(len(history.heads[layer]) for layer in layers)), np.nan)
    for row, layer in enumerate(layers):
        table[row, : len(history.heads[layer])] = history.heads[layer]
    image = axes.imshow(table, cmap="magma", norm=Normalize(0.0, 1.0), aspect="auto")
    _name_rows(axes, layers)
    axes.set_xlabel(f"head, at step {history.steps[-1]}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axes, label="entropy of each head", pad=0.01)


def _name_rows(axes: Any, rows: Sequence[str]) -> None:
    stride = -(-len(rows) // 24)
    axes.set_yticks(range(0, len(rows), stride), rows[::stride], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first layer stands on top
