"""The loss curve as a picture, drawn from metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pangu_alpha.files import atomic_write
from pangu_alpha.train.json_lines import read_json_lines

TRAINING, VALIDATION, QUIET = "#1f5fa8", "#c8501e", "#5f6368"


@dataclass
class History:
    """The numbers of a run that its picture shows."""

    steps: list[int] = field(default_factory=list)
    """Steps, as counted over the whole run."""
    losses: list[float] = field(default_factory=list)
    """Training loss of each step, nats a token."""
    learning_rates: list[float] = field(default_factory=list)
    """Learning rate of each step."""
    validations: dict[int, float] = field(default_factory=dict)
    """Held-out loss after so many steps, nats a token."""

    @classmethod
    def read(cls, path: str | Path) -> History:
        """The history in a metrics.jsonl; of a step that was measured twice the later one counts."""
        history = cls()
        for row in read_json_lines(path):
            history.add(row)
        return history

    def add(self, row: dict[str, Any]) -> None:
        """Take in one row of metrics.jsonl."""
        loss = row.get("loss")
        if loss is None:
            return
        if row["kind"] == "validation":
            self.validations[row["step"]] = loss
        elif row["kind"] == "step":
            self.steps.append(row["step"])
            self.losses.append(loss)
            self.learning_rates.append(row["learning_rate"])


def smooth(values: Sequence[float] | NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Mean over the neighbours on both sides, weighted by a bell curve; float64, as long as `values`.

    `width` is the curve's standard deviation in steps.  Both sides, so that the line does not lag behind a falling
    loss; at the ends the neighbours that exist count.
    """
    reach = min(int(np.ceil(3 * width)), max(len(values) - 1, 0))
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-9)) ** 2)
    inner = slice(reach, reach + len(values))
    total = np.convolve(np.asarray(values, dtype=np.float64), bell)[inner]
    return total / np.convolve(np.ones(len(values)), bell)[inner]


def thin(values: Sequence[float], most: int = 4000) -> NDArray[np.float64]:
    """At most `most` means of equally many neighbours each: more points than pixels only cost time."""
    size = -(-len(values) // most) or 1
    whole = len(values) // size * size
    means = np.asarray(values[:whole], dtype=np.float64).reshape(-1, size).mean(axis=1)
    return means if whole == len(values) else np.append(means, np.mean(values[whole:]))


def draw_curves(history: History, path: str | Path, title: str = "") -> None:
    """Draw loss, held-out perplexity and learning rate over the steps into a PNG that appears whole.

    The perplexity axis on the right is the loss axis read as exp(loss), so that training and held-out text stand on
    one scale.  Needs no display.

    Raises:
        PanguError: the disk is full, read-only or closed to this user.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = Figure(figsize=(9, 5.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 1], "hspace": 0.04})
    steps, losses, rates = (thin(values) for values in (history.steps, history.losses, history.learning_rates))
    if len(steps):
        upper.plot(steps, losses, color=TRAINING, alpha=0.3, linewidth=0.8, label="training loss, each step")
        smoothed = smooth(losses, width=max(1.0, len(steps) / 120))
        upper.plot(steps, smoothed, color=TRAINING, linewidth=1.8, label="training loss, smoothed")
        lower.plot(steps, rates, color=QUIET, linewidth=1.2)
    if history.validations:
        points = sorted(history.validations.items())
        at, held_out = zip(*points, strict=True)
        upper.plot(at, held_out, color=VALIDATION, marker="o", markersize=5, linewidth=1.2, label="held-out text")
        last = held_out[-1]
        upper.annotate(
            f"perplexity {_number(np.exp(last))}",
            (at[-1], last),
            xytext=(-6, 12),
            textcoords="offset points",
            ha="right",
            color=VALIDATION,
            fontsize=10,
            fontweight="bold",
        )
    upper.set_ylabel("loss (nats a token)")
    upper.grid(True, color="#e4e4e4", linewidth=0.7)
    if upper.lines:
        upper.legend(frameon=False, loc="upper right")
    right = upper.secondary_yaxis("right", functions=(lambda loss: np.exp(np.minimum(loss, 700.0)), _logarithm))
    right.set_ylabel("perplexity")
    low, high = upper.get_ylim()
    if len(losses) > 20:  # a spike leaves the frame at the top: it must not flatten all the rest
        measured = list(history.validations.values())
        bottom = min([float(losses.min()), *measured])
        top = max([float(np.quantile(losses, 0.99)), float(losses[0]), *measured])
        margin = max(0.05 * (top - bottom), 0.01)
        low, high = bottom - margin, top + margin
        upper.set_ylim(low, high)
    right.yaxis.set_major_locator(FixedLocator(_perplexity_ticks(low, high)))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    lower.set_ylabel("learning\nrate", fontsize=9)
    lower.set_xlabel("step")
    lower.set_ylim(bottom=0)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    lower.yaxis.get_offset_text().set_fontsize(8)
    lower.tick_params(labelsize=8)
    lower.grid(True, color="#e4e4e4", linewidth=0.7)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    if title:
        upper.set_title(title, loc="left", fontsize=12)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _logarithm(perplexity: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(perplexity, 1e-300))


def _perplexity_ticks(low: float, high: float) -> list[float]:
    """Round perplexities (1, 2, 5, 10, ... or closer ones) whose logarithms lie between two losses."""
    for digits in ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        candidates = [digit * 10.0**power for power in range(9) for digit in digits]
        inside = [value for value in candidates if low <= np.log(value) <= high]
        if len(inside) >= 4:
            return inside
    return [float(value) for value in np.exp(np.linspace(low, high, 6)[1:-1])]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
