"""What a step gives, and where it is written: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.train.flops import utilisation
from pangu_alpha.train.json_lines import JsonLines, read_json_lines
from pangu_alpha.train.tensorboard_log import ScalarLog

SECONDS_PER_DAY = 86_400
METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step."""

    step: int
    """Number of the step, counted from 1 over the whole run."""
    loss: float
    """Mean loss of the batch in nats a token."""
    learning_rate: float
    """Learning rate of this step."""
    gradient_norm: float
    """Global norm of the gradients before clipping; not finite when they overflowed."""
    loss_scale: float
    """Factor the loss was multiplied with before the backward pass; 1 in float32."""
    applied: bool
    """Whether the weights were updated; False after an overflow or a skipped batch."""
    seconds: float
    """Wall time of the step."""
    tokens: int
    """Tokens fed, over all devices."""
    epoch: int
    """Pass over the training set, counted from 0."""


@dataclass(frozen=True)
class RunScale:
    """What turns a step's time into rates."""

    batch_size: int
    """Samples of one optimizer step, over all devices."""
    flops_per_token: float
    """Model FLOPs of one token, forward and backward (`flops.model_flops_per_token`)."""
    peak_flops: float | None = None
    """FLOP/s that one device can do at most; None where unknown."""
    devices: int = 1
    """Devices that share the batch."""
    device: str = "cpu"
    """What they are: cpu, gpu or ascend; its memory is looked at."""

    def tokens_per_second(self, tokens: int, seconds: float) -> float:
        """Tokens a second over all devices."""
        return tokens / seconds if seconds > 0 else 0.0

    def device_flops(self, tokens: int, seconds: float) -> float:
        """Model FLOP/s of one device."""
        return self.flops_per_token * self.tokens_per_second(tokens, seconds) / self.devices

    def utilisation(self, tokens: int, seconds: float) -> float | None:
        """Model-FLOPs utilisation; None where the peak is unknown."""
        if self.peak_flops is None:
            return None
        rate = self.tokens_per_second(tokens, seconds)
        return utilisation(self.flops_per_token, rate, self.peak_flops * self.devices)


def peak_memory(device: str = "cpu") -> int:
    """Bytes that this process has held at most so far: of the device's memory, on a CPU its resident set."""
    if device != "cpu":
        from mindspore.runtime import max_memory_allocated

        return int(max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def count_skipped(run_directory: str | Path) -> int:
    """Steps of a run so far that were not applied, over all calls."""
    return sum(row.get("applied") is False for row in read_json_lines(Path(run_directory) / METRICS_FILE))


def step_scalars(metrics: StepMetrics, scale: RunScale, memory: int) -> dict[str, float]:
    """One step's TensorBoard scalars.

    The first nine carry the names and units of MindFormers (`MFLossMonitor`): iteration-time in milliseconds,
    throughput in samples a second and device, model-flops-throughput-per-npu in TFLOP/s, B-samples-per-day in 10^9
    samples over all devices.  The others are this project's own: memory in GiB, utilisation as a share of 1.
    """
    samples_per_second = scale.batch_size / metrics.seconds if metrics.seconds > 0 else 0.0
    scalars = {
        "loss": metrics.loss,
        "learning-rate": metrics.learning_rate,
        "batch-size": float(scale.batch_size),
        "loss-scale": metrics.loss_scale,
        "grad-norm": metrics.gradient_norm,
        "iteration-time": metrics.seconds * 1000,
        "throughput": samples_per_second / scale.devices,
        "model-flops-throughput-per-npu": scale.device_flops(metrics.tokens, metrics.seconds) / 1e12,
        "B-samples-per-day": samples_per_second * SECONDS_PER_DAY / 1e9,
        "epoch": float(metrics.epoch),
        "tokens-per-second": scale.tokens_per_second(metrics.tokens, metrics.seconds),
        "memory": memory / 2**30,
        "skipped": float(not metrics.applied),
    }
    share = scale.utilisation(metrics.tokens, metrics.seconds)
    if share is not None:
        scalars["model-flops-utilisation"] = share
    return scalars


class MetricsLog:
    """metrics.jsonl and the event files of one run.

    metrics.jsonl has two kinds of rows: `{"kind": "step", ...}` with the fields of StepMetrics, tokens_per_second,
    utilisation and memory (bytes); `{"kind": "validation", "step", "loss", "perplexity"}`.  A number that is not
    finite is null there.

    Args:
        run_directory: where metrics.jsonl and tensorboard/ lie.
        scale: turns times into rates.
        resume_step: last step of the checkpoint that the run continues from, 0 for a new run; rows of later steps
            are removed.

    Raises:
        PanguError: the disk is full, read-only or closed to this user (also from the methods).
    """

    def __init__(self, run_directory: str | Path, scale: RunScale, resume_step: int = 0) -> None:
        directory = Path(run_directory)
        self.scale = scale
        self.rows = JsonLines(directory / METRICS_FILE, resume_step)
        self.scalars = ScalarLog(directory / "tensorboard", resume_step)

    @property
    def path(self) -> Path:
        """The file metrics.jsonl."""
        return self.rows.path

    def write_step(self, metrics: StepMetrics) -> dict[str, Any]:
        """Write one step to both places and return its row."""
        memory = peak_memory(self.scale.device)
        row = {
            "kind": "step",
            **asdict(metrics),
            "tokens_per_second": self.scale.tokens_per_second(metrics.tokens, metrics.seconds),
            "utilisation": self.scale.utilisation(metrics.tokens, metrics.seconds),
            "memory": memory,
        }
        self.rows.append(row)
        self.scalars.write(metrics.step, step_scalars(metrics, self.scale, memory))
        return row

    def write_validation(self, step: int, loss: float, perplexity: float | None = None) -> dict[str, Any]:
        """Write held-out loss and perplexity (exp of the loss unless given) after `step` steps; return the row."""
        if perplexity is None:
            perplexity = math.exp(min(loss, 700.0))  # a diverged loss must not overflow
        row = {"kind": "validation", "step": step, "loss": loss, "perplexity": perplexity}
        self.rows.append(row)
        self.scalars.write(step, {"validation-loss": loss, "validation-perplexity": perplexity})
        return row

    def close(self) -> None:
        """Close both; safe to call twice."""
        self.rows.close()
        self.scalars.close()
