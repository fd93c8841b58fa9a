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
from pangu_alpha.checkpoint.format import step_of
from pangu_alpha.checkpoint.load import list_checkpoints
from pangu_alpha.checkpoint.parameters import parameter_arrays
from pangu_alpha.checkpoint.rank_share import RankShare
from pangu_alpha.checkpoint.run_directory import RUNS, RunDirectory, RunLock
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config
from pangu_alpha.data.dataset import build_dataset, training_batches, validation_batches
from pangu_alpha.data.order import Batch
from pangu_alpha.data.prepare import prepare
from pangu_alpha.data.prepared import Prepared
from pangu_alpha.errors import PanguError
from pangu_alpha.parallel.context import device_name, interruptible, set_run_context
from pangu_alpha.parallel.layout import Layout, layout_of
from pangu_alpha.parallel.ranks import Ranks
from pangu_alpha.train.anomalies import NormGuard
from pangu_alpha.train.first_values import holds_parts
from pangu_alpha.train.flops import peak_speed
from pangu_alpha.train.monitor import Monitor, SilentMonitor
from pangu_alpha.train.run_identity import output_directory, run_identity
from pangu_alpha.train.run_start import restore_or_begin
from pangu_alpha.train.sink import SinkFeed, require_queue
from pangu_alpha.train.step import Stepper, build_training_step
from pangu_alpha.train.step_observers import StepObservers
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
        restore_or_begin(trainer)
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
        self.share: RankShare | None = None
        if self.ranks.count > 1:
            shapes = self.stepper.step.state_shapes()
            # On CPUs all ranks hold everything, and the first one keeps it.
            kept_by = layout if holds_parts(self.stepper.step, config) else Layout()
            attempt = f"{self.ranks.of_first(time.time_ns() % 2**40):.0f}"
            self.share = RankShare.of(self.ranks.rank, kept_by, config.model, shapes, attempt)
        self.restored_from: Path | None = None
        self.saved_step = 0

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
        return Monitor(
            self.config, self.run.path, peak=peak, devices=self.ranks.count, device=self.device, resume_step=self.step
        )

    def _loop(self, monitor: Monitor | SilentMonitor, stop: StopSignals) -> None:
        settings = self.config.train
        observers = StepObservers(self, monitor)
        try:
            for batch in self._feed():
                metrics = observers.run_step(batch)
                if not np.isfinite(metrics.loss):  # the message that ends the run names the last good checkpoint
                    self._announce(monitor, self.saver.wait())
                    self._doubt_newest(monitor)
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

    def _doubt_newest(self, monitor: Monitor | SilentMonitor) -> None:
        """Take back a checkpoint of the step just before a loss that is no number, if its weights are the reason.

        Older ones were followed by a step with a finite loss.  The weights are still that checkpoint's, as a step
        whose gradient is not finite changes none.
        """
        settings = self.config.train
        if not self.saved_step or self.saved_step < self.step - (settings.sink_size or 1):
            return
        score = self._held_out_score(settings.validation_samples)
        if score.tokens and np.isfinite(score.loss):
            return  # then it was the batch
        logger.warning("the checkpoint of step %d has no finite loss on other text either", self.saved_step)
        older = [path for path in list_checkpoints(self.run.checkpoints) if step_of(path.name) != self.saved_step]
        monitor.on_checkpoint(older[0] if older else None)

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
        if settings.sink_size and left % settings.sink_size:
            raise PanguError(
                f"train.sink_size is {settings.sink_size}, but {left} steps are left of {settings.steps}, which it "
                "does not divide; give a sink_size that does, or train.sink_size=0"
            )
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

        The values are copied before this returns, and written while training goes on.  With several processes each
        writes what it alone has, and the first one makes a checkpoint of it.
        """
        settings, step, share = self.config.train, self.step, self.share
        self.saved_step = step
        parameters = self.stepper.step.state_parameters()
        if share:
            own = set(share.names())
            parameters = [item for item in parameters if item.name in own]
        arrays = parameter_arrays(parameters)
        if share and not self.ranks.is_first:
            return self.saver.start(lambda: share.hand_over(self.run.checkpoints, step, arrays))
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
        pinned = {int(self.best["step"])}
        if settings.keep_every:
            pinned |= set(range(0, step + 1, settings.keep_every))
        return self.saver.start(
            lambda: save_checkpoint(
                self.run.checkpoints, step, arrays, state, self.config, self.prepared.tokenizer_sha256,
                keep=settings.keep_checkpoints, pinned=pinned, share=share,
            )
        )  # fmt: skip

    def last_samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Epoch and index of each sample of the last step's batch, int64 [B] both, to find or replay it."""
        size = self.config.train.batch_size
        positions = np.arange(self.samples - size, self.samples, dtype=np.int64)
        return self.prepared.train.visited(positions, self.config.train.seed, self.config.data.shuffle)
