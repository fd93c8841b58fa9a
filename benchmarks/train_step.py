"""Training speed of a configured model on this machine's CPU, beside the same model in PyTorch.

    python benchmarks/train_step.py [--config configs/quickstart.yaml] [--rounds 8] [--steps 3] [key.sub=value ...]

Both sides get the same weights and batches, and the losses of the first steps must agree before anything is timed.  The
processes take turns, those that wait are stopped.  Prints a table, and as its last line the same as JSON.  Needs
PyTorch: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from alternation import Worker, WorkerError, ending, in_turn
from machine import OtherWork, describe_machine, is_amd
from step_report import Report, Times, summarize, table

from pangu_alpha.config import Config
from pangu_alpha.config_file import format_config, load_config
from pangu_alpha.data.order import arrange_samples
from pangu_alpha.data.tokenizer import END_OF_TEXT
from pangu_alpha.errors import PanguError, UsageError

ROOT = Path(__file__).resolve().parent.parent
OURS, PEER, FAST_PEER = "PanGu-α (MindSpore)", "PyTorch as installed", "PyTorch, MKL told Intel"
FIRST_ORDINARY_ID = 10
"""Ids below it are control tokens."""
DOCUMENT_LENGTH = 100
"""Mean number of tokens of a document in the batches, about that of the quickstart's text."""
BATCHES = 8
"""Different batches, given in turn."""

# MKL asks these two functions of itself whether it runs on an Intel processor, and takes slower code if not.
MKL_PRELOAD = "int mkl_serv_intel_cpu_true() { return 1; }\nint mkl_serv_intel_cpu() { return 1; }\n"


def make_batches(config: Config) -> dict[str, np.ndarray]:
    """Arrays by name, int32 [BATCHES, B, S]: ids of which few are frequent, as in text, in documents."""
    generator = np.random.default_rng(config.train.seed)
    vocabulary, size = config.model.vocab_size, config.train.batch_size
    arrays = []
    for number in range(BATCHES):
        shape = (size, config.model.seq_length + 1)
        ids = np.exp(generator.uniform(np.log(FIRST_ORDINARY_ID), np.log(vocabulary), shape)).astype(np.int32)
        ids[generator.random(shape) < 1.0 / DOCUMENT_LENGTH] = END_OF_TEXT
        samples = np.arange(number * size, (number + 1) * size)
        arrays.append(arrange_samples(ids, np.zeros_like(samples), samples, config.train.seed, config.data))
    return {name: np.stack([getattr(batch, name) for batch in arrays]) for name in arrays[0]._fields}


def comparable(config: Config) -> Config:
    """`config` with a constant rate from the first step on, and refused where the two sides could not agree.

    Raises UsageError: one line on the setting.
    """
    compute_dtype = config.model.compute_dtype.replace("auto", "float32")
    wanted = {
        "model.dropout": (config.model.dropout, 0.0, "masks would differ"),
        "train.micro_batches": (config.train.micro_batches, 1, "the peer takes a batch at once"),
        "model.compute_dtype": (compute_dtype, "float32", "the peer has no other"),
    }
    for key, (value, allowed, reason) in wanted.items():
        if value != allowed:
            raise UsageError(f"{key} is {value}, but {reason}: add {key}={allowed}")
    optimizer = dataclasses.replace(config.optimizer, schedule="constant", warmup_steps=0)
    return dataclasses.replace(config, optimizer=optimizer)


def build_preload(folder: Path) -> Path:
    """Compile the library that lets MKL take its fast code on any processor.

    Raises PanguError: there is no C compiler.
    """
    source, library = folder / "preload.c", folder / "preload.so"
    source.write_text(MKL_PRELOAD)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise PanguError("cc cannot compile the preload; install a C compiler, or add --preload never") from None
    return library


def start_workers(workers: list[Worker], folder: Path, preload: bool, checked: int) -> None:
    """Start MindSpore's worker, which leaves the weights, then PyTorch's."""
    script = str(Path(__file__).with_name("step_worker.py"))

    def start(name: str, kind: str, environment: dict[str, str]) -> None:
        print(f"starting: {name}", file=sys.stderr, flush=True)
        command = [sys.executable, script, kind, str(folder), str(checked)]
        workers.append(Worker(name, command, folder / f"{len(workers)}.log", environment))

    start(OURS, "mindspore", {})
    start(PEER, "torch", {})
    if preload:
        start(FAST_PEER, "torch", {"LD_PRELOAD": str(build_preload(folder))})


def check_losses(workers: list[Worker], tolerance: float) -> float:
    """The largest relative difference of the first losses between the sides.

    Raises PanguError: it exceeds `tolerance`, so the sides do not compute the same.
    """
    ours = np.array(workers[0].ready["losses"])
    difference = max(float(np.max(np.abs(np.array(w.ready["losses"]) / ours - 1.0))) for w in workers[1:])
    if not difference <= tolerance:
        pairs = "; ".join(f"{w.name}: {', '.join(f'{loss:.6f}' for loss in w.ready['losses'])}" for w in workers)
        raise PanguError(f"the losses of the first steps differ by {difference:.1e}, more than {tolerance:g}: {pairs}")
    return difference


def measure(config: Config, arguments: argparse.Namespace) -> Report:
    """Start the workers, check them against each other, and time them in turns."""
    with tempfile.TemporaryDirectory(prefix="train_step_") as name, ending([]) as workers:
        folder = Path(name)
        (folder / "config.yaml").write_text(format_config(config), encoding="utf-8")
        np.savez(folder / "batches.npz", **make_batches(config))
        preload = arguments.preload == "always" or (arguments.preload == "auto" and is_amd())
        start_workers(workers, folder, preload, arguments.checked_steps)
        difference = check_losses(workers, arguments.tolerance)
        times: dict[str, Times] = {worker.name: Times([], [], []) for worker in workers}
        for number in range(arguments.rounds):
            for worker in in_turn(workers, number):
                others = OtherWork(worker.process.pid)
                times[worker.name].seconds.append(worker.ask(f"steps {arguments.steps}")["seconds"])
                times[worker.name].others.append(others.share())
            for worker in in_turn(workers, number):
                times[worker.name].peaks.append(worker.ask("peak")["flops"])
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        told = {worker.name: worker.ready for worker in workers}
    return summarize(config, describe_machine(), told, times, difference)


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", default=str(ROOT / "configs" / "quickstart.yaml"), help="default: the quickstart")
    parser.add_argument("--rounds", type=int, default=8, help="turns of every worker (8)")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn (3)")
    parser.add_argument(
        "--preload", choices=("auto", "always", "never"), default="auto",
        help="a second PyTorch whose matrix library is told that it runs on Intel (auto: on AMD processors)",
    )  # fmt: skip
    parser.add_argument("--checked-steps", type=int, default=4, help="first steps whose losses must agree (4)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="how far they may differ, relative (1e-4)")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes of the configuration")
    return parser.parse_intermixed_args(words)


def main(words: list[str]) -> int:
    """Exit code: 0, 1 (failed) or 2 (bad use)."""
    arguments = parse(words)
    try:
        config = comparable(load_config(arguments.config, arguments.overrides).config)
        if importlib.util.find_spec("torch") is None:
            raise PanguError("PyTorch is not installed; pip install -e '.[bench]' adds it")
        report = measure(config, arguments)
    except (PanguError, WorkerError) as error:
        print(f"train_step.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(table(report))
    print(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
