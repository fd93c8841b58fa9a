"""What looks at the single steps of a run: their time, health, profile, and gradients that are far off."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from pangu_alpha.data.order import Batch
from pangu_alpha.parallel.context import interruptible
from pangu_alpha.train.anomalies import SkippedBatches
from pangu_alpha.train.first_values import holds_parts
from pangu_alpha.train.health_probe import HealthMeter
from pangu_alpha.train.metrics import StepMetrics
from pangu_alpha.train.monitor import Monitor, SilentMonitor
from pangu_alpha.train.profile import StepProfiler, parse_steps
from pangu_alpha.train.sink import SinkFeed

if TYPE_CHECKING:
    from pangu_alpha.train.trainer import Trainer

logger = logging.getLogger(__name__)


class StepObservers:
    """What looks at single steps: their time, health, profile, and gradients that are far off."""

    def __init__(self, trainer: Trainer, monitor: Monitor | SilentMonitor) -> None:
        self.trainer, self.monitor = trainer, monitor
        settings = trainer.config.train
        self.skipped = SkippedBatches(trainer.run.path, trainer.step) if trainer.ranks.is_first else None
        self.profiler: StepProfiler | None = None
        first_rank = trainer.ranks.is_first
        if settings.profile and first_rank:
            first, last = parse_steps(settings.profile)
            self.profiler = StepProfiler(first, last, trainer.run.path / "profile", trainer.device)
            if first <= trainer.step or last > settings.steps:
                logger.warning(
                    "train.profile is %s, but this call does steps %d to %d: no trace, or not all of it, is written",
                    settings.profile, trainer.step + 1, settings.steps,
                )  # fmt: skip
        self.health: HealthMeter | None = None
        step = trainer.stepper.step
        if settings.health_every and first_rank and holds_parts(step, trainer.config):
            # One rank alone cannot run a forward pass that all of them share.
            logger.warning("train.health_every is left out: layers are looked at where one device holds them whole")
        elif settings.health_every and settings.sink_size and first_rank:
            logger.warning("train.health_every is left out: in sink mode no batch passes through here")
        elif settings.health_every and first_rank:
            self.health = HealthMeter(trainer.model, list(step.weights), step.optimizer)
        self._clock = time.perf_counter()
        self._limit = float("inf")

    def run_step(self, batch: Batch | SinkFeed) -> StepMetrics:
        """One call of the step cell, measured."""
        trainer, settings = self.trainer, self.trainer.config.train
        taken = settings.sink_size or 1
        step = trainer.step + taken
        self._limit = trainer.guard.limit
        if settings.skip_norm_factor:
            trainer.stepper.set_norm_limit(self._limit)
        health = self.health if self.health and step % settings.health_every == 0 else None
        if health:
            health.before()
        if self.profiler:
            self.profiler.before_step(step)
        started = time.perf_counter()
        with interruptible():
            values, norms = batch() if isinstance(batch, SinkFeed) else trainer.stepper(batch)
        seconds = time.perf_counter() - started
        if self.profiler:
            self.profiler.after_step(step)
        trainer.step, trainer.seconds = step, trainer.seconds + seconds
        trainer.samples += taken * settings.batch_size
        if health and not isinstance(batch, SinkFeed):
            share = values["learning_rate"] / trainer.config.optimizer.learning_rate
            self.monitor.on_health(health.after(step, norms, batch, share))
        epoch = (trainer.samples - settings.batch_size) // trainer.prepared.train_samples
        tokens = settings.batch_size * trainer.config.model.seq_length
        return StepMetrics(
            step, values["loss"], values["learning_rate"], values["gradient_norm"], values["loss_scale"],
            bool(values["applied"]), seconds / taken, tokens, epoch,
        )  # fmt: skip

    def note_skipped(self, metrics: StepMetrics) -> None:
        """Tell the guard of the step's norm, and list the batch if it was skipped for it."""
        skipped = not metrics.applied and np.isfinite(metrics.gradient_norm)
        if skipped:
            epochs, samples = self.trainer.last_samples()
            if self.skipped is not None:
                norms = metrics.gradient_norm, self._limit
                self.skipped.append(metrics.step, epochs.tolist(), samples.tolist(), *norms)
        self.trainer.guard.observe(metrics.step, metrics.gradient_norm, bool(skipped), metrics.loss_scale)

    def close(self) -> None:
        """Close files and profiler."""
        if self.skipped is not None:
            self.skipped.close()
        if self.profiler:
            self.profiler.close()
