"""A published size in the form of its release, taken in and used once on this machine: seconds and peak memory.

The weights themselves are not to be had here, so they are random, of the true shapes and names, float16, cut for the
512 ranks of the release as its strategy file tells (model parallelism 8 ways, then optimizer sharding 64 ways along the
rows), and written by MindSpore.  Nothing of the importer is used to make them, and what it made of them is compared.

    python benchmarks/published_slices.py STRATEGY_FILE [FOLDER]

STRATEGY_FILE is `pangu_alpha_2.6B_ckpt_strategy.ckpt` of the release.  FOLDER (default: a temporary one) needs 17 GB.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mindspore
import numpy as np
from machine import describe_machine

HIDDEN, LAYERS, VOCABULARY, POSITIONS = 2560, 32, 40000, 1024
MODEL_PARALLEL, OPTIMIZER_SHARDS = 8, 64
NEW_TOKENS = 16
LAYOUT = ("parallel.data_parallel=2", "parallel.model_parallel=4", "parallel.optimizer_shards=2")
CHECKED = ("backbone.blocks.7.attention.dense2.weight", "backbone.top_query_layer.output.mapping.weight")


def shapes() -> dict[str, tuple[int, ...]]:
    """Of all tensors in the slices, under the release's names."""
    found: dict[str, tuple[int, ...]] = {"backbone.layernorm.gamma": (HIDDEN,), "backbone.layernorm.beta": (HIDDEN,)}
    for layer in (*(f"blocks.{number}" for number in range(LAYERS - 1)), "top_query_layer"):
        for norm in ("layernorm1", "layernorm2"):
            found |= {f"backbone.{layer}.{norm}.{part}": (HIDDEN,) for part in ("gamma", "beta")}
        for name in ("dense1", "dense2", "dense3", "projection"):
            found[f"backbone.{layer}.attention.{name}.weight"] = (HIDDEN, HIDDEN)
            found[f"backbone.{layer}.attention.{name}.bias"] = (HIDDEN,)
        found[f"backbone.{layer}.output.mapping.weight"] = (HIDDEN, 4 * HIDDEN)
        found[f"backbone.{layer}.output.mapping.bias"] = (4 * HIDDEN,)
        found[f"backbone.{layer}.output.projection.weight"] = (4 * HIDDEN, HIDDEN)
        found[f"backbone.{layer}.output.projection.bias"] = (HIDDEN,)
    return found


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random, but the same for the same name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    array = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(0.02)
    return (array + np.float32(name.endswith("gamma"))).astype(np.float16)


def cut_axis(name: str) -> int | None:
    """The axis that model parallelism cuts (official `pangu_alpha.py`); None for what every rank has whole."""
    if "dense" in name or name.endswith(("mapping.bias", "projection.weight")):
        return 0
    return 1 if name.endswith("mapping.weight") else None


def part(name: str, array: np.ndarray, rank: int) -> np.ndarray:
    """What a rank's slice holds."""
    axis = cut_axis(name)
    if axis is None:
        return array
    shard, model = divmod(rank, MODEL_PARALLEL)
    own = np.split(array, MODEL_PARALLEL, axis)[model]
    return np.ascontiguousarray(np.split(own, OPTIMIZER_SHARDS)[shard])


def write_release(folder: Path) -> None:
    """512 slices and the three tables."""
    arrays = {name: values(name, shape) for name, shape in shapes().items()}
    for rank in range(MODEL_PARALLEL * OPTIMIZER_SHARDS):
        own = [{"name": name, "data": mindspore.Tensor(part(name, array, rank))} for name, array in arrays.items()]
        mindspore.save_checkpoint(own, str(folder / f"filerted_{rank}.ckpt"))
    tables = {"word_embedding": VOCABULARY, "position_embedding": POSITIONS, "top_query_embedding": POSITIONS}
    for name, rows in tables.items():
        np.save(folder / f"{name}.npy", values(name, (rows, HIDDEN)))


# Between this process and the one that is measured: a process counts its parent's memory until it is one of its own.
_MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measured(words: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in GiB of a `pangu-alpha` job."""
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "pangu_alpha.cli.main", *words]
    started = time.perf_counter()
    code, peak = map(int, subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split())
    if code:
        raise SystemExit(f"pangu-alpha {words[0]} failed")
    return time.perf_counter() - started, peak / 2**20


def check(folder: Path) -> None:
    """Some tensors of the imported checkpoint against what was drawn."""
    from pangu_alpha.checkpoint.run_directory import find_checkpoint

    checkpoint = find_checkpoint(folder, wanted=lambda name: False)
    names = {
        CHECKED[0]: "blocks.7.attention.key.weight",
        CHECKED[1]: "query_layer.block.feed_forward.inner.weight",
        "word_embedding": "word_table",
    }
    every = shapes() | {"word_embedding": (VOCABULARY, HIDDEN)}
    for theirs, ours in names.items():
        ((_, found),) = checkpoint.tensors([ours])
        if not np.array_equal(found, values(theirs, every[theirs])):
            raise SystemExit(f"{ours} is not what was drawn as {theirs}")


def main() -> None:
    """Make, import, write; print."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    print(f"machine: {dataclasses.asdict(describe_machine())}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary)
        release, run = folder / "release", folder / "run"
        release.mkdir(parents=True)
        started = time.perf_counter()
        write_release(release)
        size = sum(path.stat().st_size for path in release.iterdir())
        print(f"made      {size / 1e9:.2f} GB in 512 slices and three tables: {time.perf_counter() - started:.0f} s")
        words = ["checkpoint", "import", "--from", str(release), "--to", str(run), "--strategy", sys.argv[1]]
        seconds, peak = measured(words)
        print(f"imported  {seconds:.0f} s ({size / 1e6 / seconds:.0f} MB/s), peak memory {peak:.2f} GiB")
        check(run)
        print("compared  three tensors are what was drawn")
        words = ["checkpoint", "convert", "--from", str(run), "--to", str(folder / "cut"), *LAYOUT]
        seconds, peak = measured(words)
        print(f"converted {seconds:.0f} s to {' '.join(LAYOUT)}, peak memory {peak:.2f} GiB")
        words = ["generate", "--checkpoint", str(run), "--greedy", "--device", "cpu", "四川的省会是"]
        one, _ = measured([*words, "--max-new-tokens", "1"])
        seconds, peak = measured([*words, "--max-new-tokens", str(NEW_TOKENS)])
        rate = (NEW_TOKENS - 1) / max(1e-9, seconds - one)
        print(f"wrote     {NEW_TOKENS} tokens in {seconds:.0f} s with loading and compiling, peak {peak:.2f} GiB")
        print(f"          {rate:.2f} tokens/s, by the difference to a run of one token ({one:.0f} s)")


if __name__ == "__main__":
    main()
