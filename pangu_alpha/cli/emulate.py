"""`pangu-alpha emulate`: all ranks of a small run, or of a large run's twin, run in one process beside one device."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cli.common import add_config_arguments, format_table
from pangu_alpha.config import Config
from pangu_alpha.config_file import load_config
from pangu_alpha.errors import PanguError
from pangu_alpha.interrupts import unbroken_import

if TYPE_CHECKING:
    import numpy as np

    from pangu_alpha.rehearsal.emulator.comparison import Difference, StepComparison
    from pangu_alpha.rehearsal.emulator.emulation import EmulatedRun

EXAMPLES = """
pangu-alpha emulate --product rows
pangu-alpha emulate --config configs/twins/all_five.yaml --steps 3
pangu-alpha emulate --config configs/runs/200b_2048.yaml --stages 4
pangu-alpha emulate --config configs/twins/all_five.yaml optimizer.kind=sgd optimizer.learning_rate=0.5
pangu-alpha emulate --config configs/twins/all_five.yaml --plant missing_all_reduce
"""

_LARGEST_WIDTH = 256  # of a model that is emulated as it is
_SHOWN = 8
_ROW = "{:>4}  {:>10}  {:>10}  {:>8}  {:>10}  {:>10}  {:>8}  {:>7}  {:>8}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    from pangu_alpha.rehearsal.emulator.matrix_product import STRATEGIES
    from pangu_alpha.rehearsal.emulator.plant import PLANTS

    add_config_arguments(parser, "configs/twins/all_five.yaml")
    parser.add_argument(
        "--product",
        choices=tuple(STRATEGIES),
        help="instead of a run, one product of two matrices on 4 devices: how each strategy cuts it",
    )
    parser.add_argument("--steps", metavar="N", type=_positive, default=3, help="optimizer steps (default: 3)")
    parser.add_argument(
        "--stages", metavar="N", type=int, choices=(2, 4), default=2, help="stages of a large run's twin (default: 2)"
    )
    parser.add_argument("--target", choices=("ascend", "gpu"), default="ascend", help="device (default: ascend)")
    parser.add_argument(
        "--at-once", metavar="N", type=_positive, default=2, help="ranks that compile at the same time (default: 2)"
    )
    parser.add_argument("--plant", metavar="NAME", help=f"plant an error, to see it found: {', '.join(PLANTS)}")
    parser.add_argument("--traffic", action="store_true", help="also show what each rank sends in a step")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep graphs and MindSpore's logs there")


def run(arguments: argparse.Namespace) -> int:
    """Compile, run, compare; 1 if anything differs."""
    if arguments.product:
        return _product(arguments)
    config = load_config(arguments.config, arguments.overrides).config

    from pangu_alpha.rehearsal.mindir import compiled_protobuf

    os.environ.update({**compiled_protobuf(), **os.environ})  # before MindSpore is imported
    with unbroken_import():
        from pangu_alpha.rehearsal.emulator.emulation import (
            EmulatedRun,
            compare_run,
            compile_with_reference,
            count_graphs,
        )
    from pangu_alpha.parallel.layout import layout_of
    from pangu_alpha.progress import Progress
    from pangu_alpha.rehearsal.emulator.plant import plant_named

    config = _small_enough(config, arguments.stages)
    plant = plant_named(arguments.plant, config) if arguments.plant else None
    print(f"{config.name}, {layout_of(config)}, {arguments.target}")
    if plant is not None:
        print(f"planted                    {arguments.plant}: {plant.explanation}")
    with _folder(arguments.keep) as folder:
        with Progress("compiling", count_graphs(config), "graphs") as progress:
            compiled, references = compile_with_reference(
                config,
                folder,
                arguments.steps,
                arguments.target,
                arguments.at_once,
                lambda rank: progress.advance(),
                plant,
            )
        emulated = EmulatedRun(compiled)
        comparisons = list(_shown(compare_run(emulated, references)))
    if arguments.traffic:
        print(f"\nsent in a step\n{_traffic_table(emulated)}")
    return _verdict(comparisons, emulated)


def _product(arguments: argparse.Namespace) -> int:
    from pangu_alpha.rehearsal.emulator.matrix_product import LEFT, RIGHT, STRATEGIES, run_product

    print(f"x @ w on 4 devices, MatMul sharded {STRATEGIES[arguments.product]}: parts of each axis of x, of w")
    print(f"\n{_beside([('x', LEFT), ('w', RIGHT), ('x @ w', LEFT @ RIGHT)])}")
    with _folder(arguments.keep) as folder:
        parts = run_product(arguments.product, folder, arguments.target, arguments.at_once)
    for rank, part in enumerate(parts):
        shown = [("x", part.left), ("w", part.right), ("MatMul", part.product)]
        if part.calls:
            shown.append(("after " + part.calls[0].split(" at ")[1].split(" float")[0], part.result))
        print(f"\ndevice {rank}\n{_beside(shown)}")
    return 0


def _beside(matrices: list[tuple[str, np.ndarray]]) -> str:
    """Matrices with their names, one beside the other."""
    rows: list[list[str]] = []
    for number in range(max(len(matrix) for _, matrix in matrices)):
        cells = [matrix[number] if number < len(matrix) else [] for _, matrix in matrices]
        rows.append([" ".join(f"{value:3.0f}" for value in cell) for cell in cells])
    return format_table([f"{name} {list(matrix.shape)}" for name, matrix in matrices], rows)


def _small_enough(config: Config, stages: int) -> Config:
    """`config`, or its twin if it is too large."""
    from pangu_alpha.parallel.layout import layout_of
    from pangu_alpha.rehearsal.twin import MOST_RANKS, derive_twin

    if layout_of(config).devices <= MOST_RANKS and config.model.hidden_size <= _LARGEST_WIDTH:
        return config
    return derive_twin(config, stages)


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    if keep is not None:
        yield Path(keep)
        return
    folder = Path(tempfile.mkdtemp(prefix="pangu-alpha-emulate-"))
    try:
        yield folder
    except PanguError:
        raise  # its line may name a file in there
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _shown(comparisons: Iterator[StepComparison]) -> Iterator[StepComparison]:
    """The comparisons, each printed as it comes."""
    print(
        "\n" + _ROW.format("step", "loss", "one device", "differs", "norm", "one device", "differs", "applied",
                           "differs", "parameter that is farthest off"),
        flush=True,
    )  # fmt: skip
    for comparison in comparisons:
        rank, reference = comparison.ranks[-1], comparison.reference
        farthest = comparison.largest_of_parameters
        print(
            _ROW.format(
                comparison.step + 1,
                f"{rank['loss']:.6f}", f"{reference['loss']:.6f}", f"{comparison.largest('loss'):.1e}",
                f"{rank['gradient_norm']:.6f}", f"{reference['gradient_norm']:.6f}",
                f"{comparison.largest('gradient_norm'):.1e}",
                "yes" if rank["applied"] else "no",
                f"{farthest.size:.1e}", f"{farthest.name} on rank {farthest.rank}",
            ),
            flush=True,
        )  # fmt: skip
        yield comparison


def _verdict(comparisons: list[StepComparison], emulated: EmulatedRun) -> int:
    from pangu_alpha.rehearsal.emulator.disagreement import disagreements

    compared = len(comparisons[-1].parameters)
    idle = sorted({name for _, name in comparisons[-1].idle})
    print(
        f"\ncompared                   {compared} parts of parameters on {len(comparisons[-1].ranks)} ranks, each step"
    )
    if idle:
        print(f"not compared               copies that are never trained, on later stages: {', '.join(idle)}")
    for line in emulated.cluster.device_deadlocks:
        print(f"devices would stand still  {line}")
    wrong = [(comparison.step, difference) for comparison in comparisons for difference in comparison.too_large]
    if wrong:
        print(f"\n{len(wrong)} numbers differ from one device, such as\n{_differences_table(wrong)}")
    if wrong:
        for line in disagreements(comparisons[-1], emulated.cluster.ranks):
            print(line)
    same = not wrong and not emulated.cluster.device_deadlocks
    print("all ranks do what one device does" if same else "DIFFERENT: the ranks do not do what one device does")
    return 0 if same else 1


def _differences_table(wrong: list[tuple[int, Difference]]) -> str:
    """The worst of each name in the first step that has any, with all ranks where it differs."""
    first = wrong[0][0]
    ranks: dict[str, list[int]] = {}
    worst: dict[str, Difference] = {}
    for step, difference in wrong:
        if step == first:
            worst.setdefault(difference.name, difference)
            ranks.setdefault(difference.name, []).append(difference.rank)
    rows = [
        [str(first + 1), name, f"{item.size:.2e}", f"{item.allowed:.0e}", " ".join(map(str, sorted(ranks[name])))]
        for name, item in list(worst.items())[:_SHOWN]
    ]
    return format_table(["step", "what", "differs by", "allowed", "on ranks"], rows, (0, 2, 3))


def _traffic_table(emulated: EmulatedRun) -> str:
    rows = []
    for rank in emulated.cluster.ranks:
        for (operator, ranks), traffic in sorted(emulated.traffic(rank.number).items()):
            row = [str(rank.number), operator, " ".join(map(str, ranks)), str(traffic.calls), str(traffic.bytes)]
            rows.append(row)
    return format_table(["rank", "operator", "ranks", "calls", "bytes"], rows, (0, 3, 4))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
