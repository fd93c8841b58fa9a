"""A worker of `train_step.py`: builds one side's training step and runs it when asked.

    step_worker.py mindspore|torch FOLDER CHECKED

FOLDER holds config.yaml and batches.npz; the first MindSpore worker leaves weights.npz there, which the others start
from.  CHECKED steps are run before it is ready, their losses are told.  Requests: `steps N` and `peak`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from alternation import serve, take_output

from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config

PEAK_SIDES = (1024, 2048)
"""Sides of the square matrices whose products PyTorch's peak is measured with."""

Step = Callable[[tuple[np.ndarray, ...]], float]


def mindspore_step(config: Config, folder: Path) -> tuple[Step, dict[str, Any]]:
    """The step of this project, as the trainer runs it, and what is worth telling of it."""
    import mindspore

    from pangu_alpha.model.initial_values import fill_initial_values
    from pangu_alpha.model.numerics import resolve_numerics
    from pangu_alpha.model.pangu_alpha import PanguAlphaLoss, PanguAlphaModel
    from pangu_alpha.parallel.context import set_single_device_context
    from pangu_alpha.train.step import Stepper, TrainStep

    device = set_single_device_context("cpu")
    numerics = resolve_numerics(config.model, device)
    model = PanguAlphaModel(config.model, numerics)
    fill_initial_values(model, config.model, config.train.seed)
    if not (folder / "weights.npz").exists():
        np.savez(folder / "weights.npz", **{p.name: p.asnumpy() for p in model.get_parameters()})
    stepper = Stepper(TrainStep(PanguAlphaLoss(model, config.model.vocab_size), config, numerics))

    def step(batch: tuple[np.ndarray, ...]) -> float:
        return float(stepper(batch)[0]["loss"])

    return step, {"versions": {"mindspore": mindspore.__version__, "numpy": np.__version__}}


def torch_step(config: Config, folder: Path) -> tuple[Step, dict[str, Any]]:
    """PyTorch's step, and what is worth telling of it."""
    import torch
    from torch_peer import PeerModel, PeerStep

    model = PeerModel(config.model)
    with np.load(folder / "weights.npz") as weights:
        model.load(weights)
    step = PeerStep(model, config.optimizer, see_documents=config.data.reset_attention)
    with torch.profiler.profile() as profile, torch.no_grad():
        batch = next(batches(folder))
        tokens, positions, query_positions, segments, _ = (torch.from_numpy(array) for array in batch)
        model(tokens, positions, query_positions, segments if step.see_documents else None)
    kinds = {event.key for event in profile.key_averages() if event.key.startswith("aten::_scaled_dot_product")}
    told = {
        "versions": {"torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "attention": sorted(kinds),
        "matrix_library": "MKL" if torch.backends.mkl.is_available() else "no MKL",
    }
    return step, told


def batches(folder: Path) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches that all workers are given, over and over."""
    with np.load(folder / "batches.npz") as file:
        arrays = [file[name] for name in ("tokens", "positions", "query_positions", "segments", "labels")]
    while True:
        yield from zip(*arrays, strict=True)


def mindspore_peak() -> float:
    """FLOP/s of the best product that NumPy or MindSpore made."""
    from pangu_alpha.train.flops import measure_matrix_peak

    return measure_matrix_peak()


def torch_peak() -> float:
    """FLOP/s of the best product that PyTorch made."""
    import torch

    best = 0.0
    for side in PEAK_SIDES:
        left, right = torch.randn(2, side, side)
        torch.mm(left, right)
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2.0 * side**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    """Run as the module's docstring says."""
    output = take_output()
    kind, folder, checked = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    build, peak = {"mindspore": (mindspore_step, mindspore_peak), "torch": (torch_step, torch_peak)}[kind]
    started = time.perf_counter()
    config = load_config(folder / "config.yaml").config
    step, told = build(config, folder)
    feed = batches(folder)
    losses = [step(next(feed)) for _ in range(checked)]

    def answer(request: str) -> dict[str, float]:
        if request == "peak":
            return {"flops": peak()}
        count = int(request.removeprefix("steps "))
        start = time.perf_counter()
        for _ in range(count):
            loss = step(next(feed))
        return {"seconds": (time.perf_counter() - start) / count, "loss": loss}

    serve({**told, "losses": losses, "start_seconds": time.perf_counter() - started}, answer, output)


if __name__ == "__main__":
    main()
