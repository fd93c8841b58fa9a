"""Where samples of health go: health.jsonl, TensorBoard, warnings, health.png."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pangu_alpha.train.health import HealthSample, LayerHealth, by_layer
from pangu_alpha.train.health_picture import HealthHistory, draw_health
from pangu_alpha.train.health_warnings import HealthWarnings
from pangu_alpha.train.json_lines import JsonLines, read_json_lines
from pangu_alpha.train.tensorboard_log import ScalarLog


def health_scalars(sample: HealthSample, layers: dict[str, LayerHealth]) -> dict[str, float]:
    """A sample's TensorBoard scalars.

    local_norm/<parameter>, adam_m_norm/<parameter>, adam_v_norm/<parameter> and weight_norm (of all weights together)
    carry the names of MindFormers (`TrainingStateMonitor`); layer-<quantity>/<layer> are this project's own.
    """
    scalars = {}
    for tag, norms in (
        ("local_norm", sample.gradient_norm),
        ("adam_m_norm", sample.adam_m_norm),
        ("adam_v_norm", sample.adam_v_norm),
    ):
        scalars.update({f"{tag}/{name}": value for name, value in norms.items()})
    if sample.weight_norm:
        scalars["weight_norm"] = math.sqrt(sum(value * value for value in sample.weight_norm.values()))
    for layer, health in layers.items():
        for quantity, value in asdict(health).items():
            if not math.isnan(value):
                scalars[f"layer-{quantity.replace('_', '-')}/{layer}"] = value
    return scalars


def _row(sample: HealthSample) -> dict[str, Any]:
    """A sample as a row of health.jsonl: numbers cut to seven digits, what was not measured left out."""

    def shorten(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.7g}")
        return [shorten(item) for item in value] if isinstance(value, (list, tuple)) else value

    row: dict[str, Any] = {"step": sample.step, "learning_rate_share": shorten(sample.learning_rate_share)}
    for item in fields(sample):
        content = getattr(sample, item.name)
        if item.name not in row and content:
            row[item.name] = {name: shorten(value) for name, value in content.items()}
    return row


def _sample(row: dict[str, Any]) -> HealthSample:
    """The sample that a row of health.jsonl was written from (null, a number that was not finite, becomes NaN)."""
    known = {item.name for item in fields(HealthSample)} - {"step", "learning_rate_share"}
    content: dict[str, Any] = {
        quantity: {name: math.nan if value is None else value for name, value in values.items()}
        for quantity, values in row.items()
        if quantity in known
    }
    return HealthSample(step=row["step"], learning_rate_share=row.get("learning_rate_share", 1.0), **content)


class HealthLog:
    """Takes samples and writes them wherever they can be looked at.

    Args:
        run_directory: where health.jsonl lies.
        scalars: event file that the run's metrics go to.
        resume_step: last step of the checkpoint that the run continues from; later samples are removed.

    Raises:
        PanguError: the disk is full, read-only or closed to this user (also from `write`).
    """

    def __init__(self, run_directory: str | Path, scalars: ScalarLog, resume_step: int = 0) -> None:
        self._scalars = scalars
        self._rows = JsonLines(Path(run_directory) / "health.jsonl", resume_step)
        self._warnings = HealthWarnings()
        self.history = HealthHistory()
        for row in read_json_lines(self._rows.path):
            self._take(_sample(row))

    def _take(self, sample: HealthSample) -> tuple[dict[str, LayerHealth], list[str]]:
        layers = by_layer(sample)
        self.history.add(sample.step, layers, sample.attention_entropy)
        return layers, self._warnings.update(sample, layers)

    def write(self, sample: HealthSample) -> list[str]:
        """Write one sample; return the warnings that it makes due."""
        self._rows.append(_row(sample))
        layers, warnings = self._take(sample)
        self._scalars.write(sample.step, health_scalars(sample, layers))
        return warnings

    def draw(self, path: str | Path, title: str = "") -> None:
        """Draw all samples so far into a PNG.

        Raises:
            PanguError: the disk is full, read-only or closed to this user.
        """
        draw_health(self.history, path, title)

    def close(self) -> None:
        """Close health.jsonl; safe to call twice."""
        self._rows.close()
