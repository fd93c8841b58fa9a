"""Processes of a cluster write one checkpoint together, on a file system that all of them see."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.format import MANIFEST
from pangu_alpha.checkpoint.load import Checkpoint, list_checkpoints, newest_good_checkpoint
from pangu_alpha.checkpoint.ownership import is_laid_out, parameter_of
from pangu_alpha.checkpoint.rank_share import RankShare
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config, ModelConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.slices import parameter_slice
from pangu_alpha.parallel.stages import stages_of_parameter
from tests.checkpoint.shapes import parameter_shapes

ROOT = Path(__file__).parents[2]
MODEL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, seq_length=16)
CONFIG = Config(name="together", model=MODEL)
LAYOUT = Layout(data_parallel=2, model_parallel=2, pipeline_stages=2, optimizer_shards=2, micro_batches=2)


def whole_arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    weights = parameter_shapes(MODEL)
    names = [*weights, *(f"adam_m.{name}" for name in weights), *(f"adam_v.{name}" for name in weights)]
    arrays = {name: generator.standard_normal(weights[parameter_of(name)]).astype(np.float32) for name in names}
    return arrays | {"global_step": np.array([7], np.int32), "loss_scale": np.array(2.0, np.float32)}


def memory_of(rank: int, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a rank has: its part of its stage's tensors, something untrained of the others', and all counters."""
    held = {}
    for name, array in arrays.items():
        weight = parameter_of(name)
        if not is_laid_out(name):
            held[name] = array
        elif LAYOUT.stage_of(rank) in stages_of_parameter(weight, MODEL, LAYOUT):
            held[name] = array[parameter_slice(weight, array.shape, LAYOUT, rank)]
        else:
            held[name] = np.full(array.shape, np.nan, np.float32)
    if LAYOUT.stage_of(rank) > 0:
        held["word_table"] = np.full_like(held["word_table"], np.nan)  # the copy that is never trained
    return held


def share_of(rank: int, arrays: dict[str, np.ndarray], attempt: str = "1", patience: float = 20.0) -> RankShare:
    shapes = {name: array.shape for name, array in arrays.items()}
    return dataclasses.replace(RankShare.of(rank, LAYOUT, MODEL, shapes, attempt), patience=patience)


def run_ranks(work: Callable[[int], object], ranks: list[int]) -> dict[int, BaseException]:
    """Each in a thread; what they raised."""
    errors: dict[int, BaseException] = {}

    def one(rank: int) -> None:
        try:
            work(rank)
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def save_rank(rank: int, folder: Path, step: int, arrays: dict[str, np.ndarray], share: RankShare) -> None:
    own = {name: memory_of(rank, arrays)[name] for name in share.names()}
    if rank:
        time.sleep(0.05 * (8 - rank))  # the first one is ready before the others
        share.hand_over(folder, step, own)
    else:
        save_checkpoint(folder, step, own, {"step": step}, CONFIG, "f" * 64, keep=2, share=share)


def save_all(rank: int, folder: Path, step: int, arrays: dict[str, np.ndarray]) -> None:
    save_rank(rank, folder, step, arrays, share_of(rank, arrays))


def test_eight_ranks_write_one_checkpoint(tmp_path: Path) -> None:
    arrays = whole_arrays()
    for step in (10, 30):
        changed = {name: array + array.dtype.type(step) for name, array in arrays.items()}
        save = functools.partial(save_all, folder=tmp_path, step=step, arrays=changed)
        errors = run_ranks(save, list(range(8)))
        assert not errors
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000030", "step_00000010"]
    assert not list(tmp_path.glob(".*"))
    checkpoint, damages = newest_good_checkpoint(tmp_path)
    assert not damages
    assert checkpoint is not None
    read = dict(checkpoint.tensors())
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array + array.dtype.type(30), err_msg=name)
    owners = [file.name for file in checkpoint.manifest.files]
    # All but those whose parts others have already: optimizer shards make every rank keep something here.
    assert owners == [f"rank_{rank:04d}.safetensors" for rank in range(8)]
    stored = sum(np.prod(entry.stored_shape, dtype=int) for entry in checkpoint.manifest.tensors)
    assert stored == sum(array.size for array in arrays.values())


def test_a_rank_that_does_not_come_leaves_nothing(tmp_path: Path) -> None:
    arrays = whole_arrays()
    save_checkpoint(tmp_path, 5, arrays, {"step": 5}, CONFIG, "f" * 64)
    patient = {rank: share_of(rank, arrays, patience=1.0) for rank in range(8)}
    errors = run_ranks(lambda rank: save_rank(rank, tmp_path, 10, arrays, patient[rank]), [0, 1, 2, 4, 5, 6, 7])
    assert list(errors) == [0]
    assert isinstance(errors[0], PanguError)
    assert "rank 3 has not written its part in 1 s; is" in str(errors[0])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000005"]
    share_of(0, arrays, attempt="2").remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


def test_a_rank_that_cannot_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = whole_arrays()

    def full(path: Path, stored: object) -> None:
        if "rank_0006" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return write(path, stored)

    from pangu_alpha.checkpoint import rank_share

    write = rank_share.write_tensors
    monkeypatch.setattr(rank_share, "write_tensors", full)
    errors = run_ranks(lambda rank: save_rank(rank, tmp_path, 10, arrays, share_of(rank, arrays)), list(range(8)))
    assert sorted(errors) == [0, 6]
    assert str(errors[0]).startswith("rank 6: cannot write ")
    assert "no space is left on the disk" in str(errors[0])
    assert not list_checkpoints(tmp_path)


def test_a_rank_with_another_part_is_refused() -> None:
    arrays = whole_arrays()
    share = share_of(1, arrays)
    own = {name: memory_of(1, arrays)[name] for name in share.names()}
    own["blocks.0.attention.query.weight"] = own["blocks.0.attention.query.weight"][:-1]
    with pytest.raises(PanguError, match=r"rank 1 has .* of blocks.0.attention.query.weight, and its part under"):
        share.stored(own)


PROCESS = """
import sys, time
from pathlib import Path
from tests.checkpoint.test_rank_share import save_rank, share_of, whole_arrays
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
arrays = whole_arrays()
share = share_of(rank, arrays, patience=3.0)
step = 0
while True:
    step += 1
    save_rank(rank, folder, step, arrays, share)
    if rank == 0: print(step, flush=True)
"""


def test_ranks_killed_while_saving_lose_nothing_announced(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        for rank in range(8)
    ]
    out = processes[0].stdout
    assert out is not None
    announced = [int(out.readline()) for _ in range(2)]
    for process in reversed(processes):
        process.kill()
    announced += [int(line) for line in out.read().splitlines()]
    for process in processes:
        process.communicate()
    checkpoint, damages = newest_good_checkpoint(tmp_path)
    assert not damages
    assert checkpoint is not None
    assert checkpoint.step >= announced[-1]
    for path in list_checkpoints(tmp_path):
        assert json.loads((path / MANIFEST).read_text())["layout"]["ranks"] == 8
        Checkpoint(path).verify()


def test_every_rank_checks_its_share(tmp_path: Path) -> None:
    arrays = whole_arrays()
    run_ranks(lambda rank: save_rank(rank, tmp_path, 10, arrays, share_of(rank, arrays)), list(range(8)))
    run_ranks(lambda rank: save_rank(rank, tmp_path, 20, arrays, share_of(rank, arrays)), list(range(8)))
    victim = tmp_path / "step_00000020" / "rank_0005.safetensors"
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    barrier, flags, found = threading.Barrier(4), [False] * 4, {}

    def check(rank: int) -> None:
        def any_rank(flag: bool) -> bool:
            flags[rank] = flag
            barrier.wait()
            result = any(flags)
            barrier.wait()
            return result

        found[rank] = newest_good_checkpoint(tmp_path, turn=rank, turns=4, any_rank=any_rank)

    assert not run_ranks(check, list(range(4)))
    assert [checkpoint.step for checkpoint, _ in found.values()] == [10] * 4
    lines = [damages[0] for _, damages in found.values()]
    assert sum("rank_0005.safetensors is damaged: tensor" in line for line in lines) == 1
    assert sum("as another rank found" in line for line in lines) == 3


@pytest.mark.parametrize("rank", range(8))
def test_a_part_is_read_without_the_rest(tmp_path_factory: pytest.TempPathFactory, rank: int) -> None:
    arrays = whole_arrays()
    folder = tmp_path_factory.getbasetemp() / "parts"
    if not folder.exists():
        run_ranks(lambda rank: save_rank(rank, folder, 10, arrays, share_of(rank, arrays)), list(range(8)))
    checkpoint = Checkpoint(folder / "step_00000010")
    other = Layout(data_parallel=1, model_parallel=4, pipeline_stages=2, micro_batches=2)
    for layout in (LAYOUT, other):
        for name in ("word_table", "blocks.2.feed_forward.inner.weight", "adam_v.blocks.0.attention.output.weight"):
            cut = parameter_slice(parameter_of(name), arrays[name].shape, layout, rank)
            np.testing.assert_array_equal(checkpoint.part(name, cut), arrays[name][cut])
