"""All that watches a training run, behind four calls: a step, a validation, a sample of health, the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pangu_alpha.config import Config
from pangu_alpha.train.anomalies import require_finite_loss
from pangu_alpha.train.curves import History, draw_curves
from pangu_alpha.train.flops import PeakSpeed, model_flops_per_token
from pangu_alpha.train.health import HealthSample
from pangu_alpha.train.health_log import HealthLog
from pangu_alpha.train.metrics import MetricsLog, RunScale, StepMetrics, count_skipped
from pangu_alpha.train.progress_line import TrainingProgress

logger = logging.getLogger(__name__)


class Monitor:
    """Writes metrics.jsonl, tensorboard/, health.jsonl, loss.png and health.png, and shows the progress.

    The pictures are drawn after every validation and at the end; one that cannot be drawn is a warning, never the end
    of a run.  On a cluster only the first rank has a Monitor.

    Args:
        config: the whole run.
        run_directory: where everything goes.
        peak: the device's speed for the utilisation (`flops.peak_speed`); None leaves it out.
        devices: devices that share the batch.
        device: what they are: cpu, gpu or ascend.
        resume_step: last step of the checkpoint that the run continues from, 0 for a new run.
        title: line above the pictures; the run's name unless given.

    Raises:
        PanguError: the disk is full, read-only or closed to this user (also from the methods).
    """

    def __init__(
        self,
        config: Config,
        run_directory: str | Path,
        *,
        peak: PeakSpeed | None = None,
        devices: int = 1,
        device: str = "cpu",
        resume_step: int = 0,
        title: str = "",
    ) -> None:
        self.directory = Path(run_directory)
        self.title = title or config.name
        self.last_checkpoint: Path | None = None
        self.scale = RunScale(
            batch_size=config.train.batch_size,
            flops_per_token=model_flops_per_token(config.model),
            peak_flops=peak.flops if peak else None,
            devices=devices,
            device=device,
        )
        self.metrics = MetricsLog(self.directory, self.scale, resume_step)
        self.history = History.read(self.metrics.path)
        skipped = count_skipped(self.directory)
        self.progress = TrainingProgress(config.train.steps, self.scale, resume_step, config.train.log_every, skipped)
        self.health: HealthLog | None = None
        if config.train.health_every or (self.directory / "health.jsonl").exists():
            self.health = HealthLog(self.directory, self.metrics.scalars, resume_step)
        self._closed = False

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def on_step(self, metrics: StepMetrics) -> None:
        """Take note of a finished step.

        Raises:
            PanguError: its loss is not a finite number: one line with the step and the last good checkpoint.
        """
        self.history.add(self.metrics.write_step(metrics))
        require_finite_loss(metrics.step, metrics.loss, self.last_checkpoint)
        self.progress.step(metrics)

    def on_validation(self, step: int, loss: float, perplexity: float | None = None) -> None:
        """Take note of the held-out loss (nats a token) after `step` steps; perplexity is its exp unless given."""
        row = self.metrics.write_validation(step, loss, perplexity)
        self.history.add(row)
        self.progress.validation(step, row["perplexity"])
        self._draw()

    def on_checkpoint(self, path: Path | None) -> None:
        """Take note of the last good checkpoint, once it is complete; None: there is none."""
        self.last_checkpoint = path

    def on_health(self, sample: HealthSample) -> None:
        """Take note of a sample of health, and warn of what is out of bounds."""
        if self.health is None:
            self.health = HealthLog(self.directory, self.metrics.scalars, sample.step - 1)
        for warning in self.health.write(sample):
            logger.warning("%s", warning)

    def close(self) -> None:
        """Draw the pictures a last time and close everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.progress.close()
        self._draw()
        if self.health is not None:
            self.health.close()
        self.metrics.close()

    def _draw(self) -> None:
        self._try_to_draw("loss.png", lambda path: draw_curves(self.history, path, self.title))
        if self.health is not None and self.health.history.steps:
            health = self.health
            self._try_to_draw("health.png", lambda path: health.draw(path, self.title))

    def _try_to_draw(self, name: str, draw: Callable[[Path], None]) -> None:
        try:
            draw(self.directory / name)
        except Exception as error:
            logger.warning("%s could not be drawn: %s", name, error)


class SilentMonitor:
    """What stands in for a Monitor on the other ranks: it writes nothing, and stops where the first one does."""

    def __enter__(self) -> SilentMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def on_step(self, metrics: StepMetrics) -> None:
        """Check the loss.

        Raises:
            PanguError: it is not a finite number.
        """
        require_finite_loss(metrics.step, metrics.loss, None)

    def on_validation(self, step: int, loss: float, perplexity: float | None = None) -> None:
        """Nothing."""

    def on_checkpoint(self, path: Path | None) -> None:
        """Nothing."""

    def on_health(self, sample: HealthSample) -> None:
        """Nothing."""
