"""The training loop: from prepared text to a run directory with checkpoints, metrics and pictures."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.background import BackgroundSaver
from pangu_alpha.checkpoint.load import newest_good_checkpoint
from pangu_alpha.checkpoint.parameters import fill_parameters, parameter_arrays
from pangu_alpha.checkpoint.run_directory import RUNS, RunDirectory, RunLock, find_checkpoint, find_tokenizer
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.config_file import format_config
from pangu_alpha.data.dataset import build_dataset, training_batches, validation_batches
from pangu_alpha.data.order import Batch
from pangu_alpha.data.prepare import prepare
from pangu_alpha.data.prepared import Prepared
from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_write
from pangu_alpha.model.initial_values import fill_initial_values
from pangu_alpha.parallel.context import device_name, interruptible, set_run_context
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.parallel.ranks import Ranks
from pangu_alpha.train.anomalies import NormGuard, SkippedBatches
from pangu_alpha.train.flops import peak_speed
from pangu_alpha.train.health_probe import HealthMeter
from pangu_alpha.train.metrics import StepMetrics
from pangu_alpha.train.monitor import Monitor, SilentMonitor
from pangu_alpha.train.profile import StepProfiler, parse_steps
from pangu_alpha.train.run_identity import output_directory, require_same_run, run_identity
from pangu_alpha.train.sink import SinkFeed, require_queue
from pangu_alpha.train.step import Stepper, build_training_step
from pangu_alpha.train.stop_signals import StopSignals
from pangu_alpha.train.validation import HeldOutScore, LaidOutValidator, Validator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` leaves."""

    run: RunDirectory
    """Where everything is."""
    prepared: Prepared
    """The text."""
    step: int
    """Optimizer steps done so far, over all calls."""
    finished: bool
    """Whether all `train.steps` are done; False after a signal."""
    before: HeldOutScore
    """All held-out text, before the first step."""
    after: HeldOutScore | None
    """All held-out text, after the last step."""
    tokens: int
    """Tokens trained on so far, over all calls."""
    seconds: float
    """Time that the steps took so far, over all calls."""
    is_first_rank: bool = True
    """Whether this process is the one that reports."""


def train(config: Config, runs: Path = RUNS) -> TrainResult:
    """Prepare the text, train, and leave a run directory; continues where an earlier call of the same run stopped.

    Args:
        config: the whole run.
        runs: where prepared text lies, and runs whose `train.output` is auto.

    Raises:
        PanguError: one line on text, settings, disk, a loss that is no number, or a directory of another run.
    """
    prepared = prepare(config, runs / "prepared")
    device, ranks = set_run_context(layout_of(config), config.parallel, config.train.device)
    require_queue(config.train.sink_size, device)
    identity = run_identity(config, prepared.fingerprint)
    run = RunDirectory(output_directory(config, identity, runs))
    with RunLock(run.path) if ranks.is_first else contextlib.nullcontext():
        trainer = Trainer(config, prepared, run, identity, device, ranks)
        trainer.restore_or_begin()
        return trainer.finish_training()


class Trainer:
    """One run of one process, between its checkpoints."""

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        run: RunDirectory,
        identity: dict[str, Any],
        device: str,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.prepared, self.run, self.identity, self.device = config, prepared, run, identity, device
        self.ranks = ranks or Ranks()
        self.stepper = Stepper(build_training_step(config, device, self.ranks.rank))
        self.model = self.stepper.step.model
        layout = layout_of(config)
        self.validator: Validator | LaidOutValidator = (
            LaidOutValidator(self.stepper.step.network, layout, self.ranks)
            if self.model.sharding.active
            else Validator(self.model, config.model)
        )
        self.guard = NormGuard(config.train.skip_norm_factor)
        self.step, self.samples, self.seconds = 0, 0, 0.0
        self.scores: dict[str, HeldOutScore] = {}
        self.best: dict[str, float] = {"step": 0, "loss": float("inf")}
        self.saver = BackgroundSaver()
        self.restored_from: Path | None = None

    # -- where a run begins ------------------------------------------------------------------------------------------

    def restore_or_begin(self) -> None:
        """Take up the newest good checkpoint of the run directory, or give the weights their initial values."""
        checkpoint, _ = newest_good_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            fill_initial_values(self.model, self.config.model, self.config.train.seed)
            if self.config.train.init_from:
                self._take_weights(self.config.train.init_from)
            if self.ranks.is_first:
                self._write_run_files()
            return
        if self.config.train.resume == "never":
            raise PanguError(
                f"train.resume is never, but {self.run.path} already holds checkpoints; remove it or give another "
                "train.output"
            )
        self.restored_from = checkpoint.directory
        state = checkpoint.train_state
        require_same_run(self.run.path, state["identity"], self.identity)
        fill_parameters(self.stepper.step.state_parameters(), checkpoint, self.config)
        self.guard.from_state(state["norm_guard"])
        self.step, self.samples, self.seconds = state["step"], state["samples"], state["seconds"]
        self.scores = {name: HeldOutScore(**score) for name, score in state["held_out"].items()}
        self.best = state.get("best") or self.best
        logger.info(
            "%s: %s step %d of %d",
            self.run.path,
            "finished at" if self.step >= self.config.train.steps else "continuing after",
            self.step,
            self.config.train.steps,
        )
        if self.step < self.config.train.steps:
            self.scores.pop("after", None)  # an earlier call had fewer steps to do

    def _take_weights(self, directory: str) -> None:
        """Start from another run's weights: the model's alone, no moments, no counters."""
        checkpoint = find_checkpoint(directory)
        there, here = checkpoint.manifest.tokenizer_sha256, self.prepared.tokenizer_sha256
        if there != here:
            raise PanguError(
                f"train.init_from: {checkpoint.directory} has another vocabulary (SHA-256 {there[:12]}…, this text has "
                f"{here[:12]}…); prepare the text with tokenizer.kind=file tokenizer.path={find_tokenizer(checkpoint)}"
            )
        fill_parameters(list(self.model.get_parameters()), checkpoint, self.config, exact=False)
        logger.info("weights taken from %s, step %d", checkpoint.directory, checkpoint.step)

    def _write_run_files(self) -> None:
        self.run.tokenizer.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.run.tokenizer) as file:
            file.write(self.prepared.tokenizer_path.read_bytes())
        with atomic_write(self.run.path / "config.yaml", "w") as file:
            file.write(format_config(self.config))

    # -- the loop ----------------------------------------------------------------------------------------------------

    def finish_training(self) -> TrainResult:
        """Run the steps that are left; a signal ends the loop after the step in hand."""
        settings = self.config.train
        if "before" not in self.scores:
            self.scores["before"] = self._held_out_score()
        if self.step < settings.steps:
            monitor = self._monitor()
            if self.restored_from is not None:
                monitor.on_checkpoint(self.restored_from)
            with monitor, StopSignals() as stop:
                if self.step == 0:
                    self._show(monitor, self.scores["before"])
                self._loop(monitor, stop)
        elif "after" not in self.scores:  # fewer steps are asked for than an earlier, unfinished call has done
            self.scores["after"] = self._held_out_score()
        return TrainResult(
            self.run, self.prepared, self.step, self.step >= settings.steps, self.scores["before"],
            self.scores.get("after"), self.samples * self.config.model.seq_length, self.seconds,
            self.ranks.is_first,
        )  # fmt: skip

    def _monitor(self) -> Monitor | SilentMonitor:
        """What watches the run: on the first rank alone, as all have the same numbers."""
        if not self.ranks.is_first:
            return SilentMonitor()
        peak = peak_speed(self.device, device_name(self.device), self.config.train.peak_tflops)
        return Monitor(self.config, self.run.path, peak=peak, devices=self.ranks.count, resume_step=self.step)

    def _loop(self, monitor: Monitor | SilentMonitor, stop: StopSignals) -> None:
        settings = self.config.train
        observers = _Observers(self, monitor)
        try:
            for batch in self._feed():
                metrics = observers.run_step(batch)
                if not np.isfinite(metrics.loss):  # the message that ends the run names the last checkpoint
                    self._announce(monitor, self.saver.wait())
                monitor.on_step(metrics)
                observers.note_skipped(metrics)
                last = self.step >= settings.steps
                best = False
                if last:
                    self.scores["after"] = self._held_out_score()
                    best = self._note_score(monitor, self.scores["after"])
                elif settings.validate_every and self.step % settings.validate_every == 0:
                    best = self._note_score(monitor, self._held_out_score(settings.validation_samples))
                stop.renew()  # a second Ctrl-C does not wait for the checkpoint
                stopping = self.ranks.any(bool(stop.received))  # a signal may reach one rank a step earlier
                self._announce(monitor, self.saver.finished())
                if last or stopping or best or self.step % settings.checkpoint_every == 0:
                    self._announce(monitor, self.save())
                if last or stopping:
                    self._announce(monitor, self.saver.wait())
                if stopping:
                    logger.info("stopped after step %d; the same command continues", self.step)
                    return
        finally:
            self.saver.settle()
            observers.close()

    @staticmethod
    def _announce(monitor: Monitor | SilentMonitor, path: Path | None) -> None:
        """Tell of a checkpoint that is complete now."""
        if path is not None:
            monitor.on_checkpoint(path)

    def _note_score(self, monitor: Monitor | SilentMonitor, score: HeldOutScore) -> bool:
        """Show a held-out score; whether it is the best so far and its checkpoint is to be kept."""
        self._show(monitor, score)
        if not score.tokens or not self.config.train.keep_best or score.loss >= self.best["loss"]:
            return False
        self.best = {"step": self.step, "loss": score.loss}
        return True

    def _feed(self) -> Iterator[Batch | SinkFeed]:
        """What each call of a step is given: batches, or in sink mode the queue that holds them."""
        settings = self.config.train
        first, left = self.samples, settings.steps - self.step
        if not settings.sink_size:
            yield from training_batches(
                self.prepared.train, self.config, settings.batch_size, first, left, *self._rows()
            )
            return
        dataset = build_dataset(self.prepared.train, self.config, settings.batch_size, first, left, *self._rows())
        feed = SinkFeed(self.stepper.step, dataset, settings.sink_size)
        for _ in range(left // settings.sink_size):
            yield feed

    def _rows(self) -> tuple[int, int]:
        """Which part of each batch this process reads, of how many."""
        layout = layout_of(self.config)
        return layout.row_part(self.ranks.rank), layout.row_parts

    def _show(self, monitor: Monitor | SilentMonitor, score: HeldOutScore) -> None:
        if score.tokens:
            monitor.on_validation(self.step, score.loss)

    def _held_out_score(self, samples: int | None = None) -> HeldOutScore:
        size = self.config.train.batch_size // self.config.train.micro_batches
        batches = validation_batches(self.prepared.valid, self.config, size, samples)
        with interruptible():
            if not self.stepper.step.sums_gradients:
                return self.validator(batches)
            own = self.validator(itertools.islice(batches, self.ranks.rank, None, self.ranks.count))
            nats, tokens = self.ranks.sum([own.nats, own.tokens])
        return HeldOutScore(float(nats), round(tokens))

    def save(self) -> Path | None:
        """Begin to write a checkpoint of this moment; gives the path of the one before, if that is only now complete.

        The values are copied before this returns, and written while training goes on.  With several processes the first
        one does it.
        """
        if not self.ranks.is_first:
            return None
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "samples": self.samples,
            "epoch": self.samples // self.prepared.train_samples,
            "norm_guard": self.guard.to_state(),
            "held_out": {name: {"nats": s.nats, "tokens": s.tokens} for name, s in self.scores.items()},
            "best": dict(self.best) if self.best["step"] else None,
            "identity": self.identity,
        }
        settings, step = self.config.train, self.step
        arrays = parameter_arrays(self.stepper.step.state_parameters())
        pinned = {int(self.best["step"])}
        if settings.keep_every:
            pinned |= set(range(0, step + 1, settings.keep_every))
        return self.saver.start(
            lambda: save_checkpoint(
                self.run.checkpoints, step, arrays, state, self.config, self.prepared.tokenizer_sha256,
                keep=settings.keep_checkpoints, pinned=pinned,
            )
        )  # fmt: skip

    def last_samples(self) -> tuple[int, np.ndarray]:
        """Epoch and sample indices of the batch of the last step, to find or replay it."""
        size = self.config.train.batch_size
        positions = np.arange(self.samples - size, self.samples, dtype=np.int64)
        epochs, samples = self.prepared.train.visited(positions, self.config.train.seed, self.config.data.shuffle)
        return int(epochs[0]), samples


class _Observers:
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
        self.health: HealthMeter | None = None
        if settings.health_every and not settings.sink_size and first_rank:  # in sink mode the host never sees a batch
            step = trainer.stepper.step
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
            epoch, samples = self.trainer.last_samples()
            if self.skipped is not None:
                self.skipped.append(metrics.step, epoch, samples.tolist(), metrics.gradient_norm, self._limit)
        self.trainer.guard.observe(metrics.step, metrics.gradient_norm, bool(skipped), metrics.loss_scale)

    def close(self) -> None:
        """Close files and profiler."""
        if self.skipped is not None:
            self.skipped.close()
        if self.profiler:
            self.profiler.close()
