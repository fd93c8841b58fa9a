"""`pangu-alpha checkpoint`: look at checkpoints, check them, compare them, write them for another layout."""

from __future__ import annotations

import argparse
import datetime
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cli import published
from pangu_alpha.cli.common import format_table, load_run, model_words

if TYPE_CHECKING:
    from pangu_alpha.checkpoint.load import Checkpoint

EXAMPLES = """
pangu-alpha checkpoint show runs/quickstart-35b22087
pangu-alpha checkpoint verify runs/quickstart-35b22087/checkpoints/step_00002000
pangu-alpha checkpoint diff runs/one runs/other
pangu-alpha checkpoint convert --from runs/one --to converted --config configs/runs/2.6b_8.yaml
pangu-alpha checkpoint import --from Pangu-alpha_2.6B --to runs/pangu_2.6b
pangu-alpha checkpoint export --from runs/pangu_2.6b --to pangu_2.6b-hf --format hugging_face
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    jobs = parser.add_subparsers(dest="action", required=True, metavar="show|verify|diff|convert|import|export")
    show = jobs.add_parser(
        "show",
        help="what is in it: step, layout, files, tensors",
        description="Show what is in a checkpoint: step, layout, model, tensors, files, versions.",
        examples="pangu-alpha checkpoint show\npangu-alpha checkpoint show runs/quickstart-35b22087 --tensors",
    )
    show.add_argument(
        "directory", nargs="?", help="a checkpoint, or a run (its newest good one); default: the newest run"
    )
    show.add_argument("--tensors", action="store_true", help="a line for each tensor")
    verify = jobs.add_parser(
        "verify",
        help="read every byte and compare it with its checksum; 1 if one differs",
        description="Read every byte and compare it with its checksum; the exit code is 1 if one differs.",
        examples="pangu-alpha checkpoint verify runs/quickstart-35b22087\n"
        "pangu-alpha checkpoint verify runs/quickstart-35b22087/checkpoints/step_00002000",
    )
    verify.add_argument("directory", help="a checkpoint, or a run: all its checkpoints")
    diff = jobs.add_parser(
        "diff",
        help="compare the tensors of two; 1 if any differs",
        description="Compare the tensors of two checkpoints; the exit code is 1 if any differs.",
        examples="pangu-alpha checkpoint diff runs/one runs/other",
    )
    diff.add_argument("first", help="a checkpoint, or a run")
    diff.add_argument("second", help="a checkpoint, or a run")
    convert = jobs.add_parser(
        "convert",
        help="write it for another layout or precision",
        description="Write a checkpoint for another layout or precision.",
        examples="pangu-alpha checkpoint convert --from runs/one --to converted --config configs/runs/2.6b_8.yaml\n"
        "pangu-alpha checkpoint convert --from runs/one --to half --precision float16",
    )
    convert.add_argument("--from", dest="source", required=True, metavar="DIR", help="a checkpoint, or a run")
    convert.add_argument("--to", required=True, metavar="DIR", help="a run directory for the new checkpoint")
    convert.add_argument("--config", metavar="FILE", help="a run whose layout it is for; default: one device")
    convert.add_argument("--precision", choices=("float32", "float16"), default="", help="of weights and moments")
    convert.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as parallel.model_parallel=4")

    published.add_actions(jobs)


def run(arguments: argparse.Namespace) -> int:
    """Show, verify, compare, convert, import or export."""
    jobs = {"show": _show, "verify": _verify, "diff": _diff, "convert": _convert}
    action = jobs.get(arguments.action) or arguments.act
    code: int = action(arguments)
    return code


def _opened(directory: str | None) -> Checkpoint:
    from pangu_alpha.checkpoint.run_directory import find_checkpoint

    return find_checkpoint(directory)


def _show(arguments: argparse.Namespace) -> int:
    checkpoint = _opened(arguments.directory)
    manifest = checkpoint.manifest
    model = manifest.config["model"]
    written = datetime.datetime.fromtimestamp(manifest.created, datetime.timezone.utc)
    layout = ", ".join(f"{name} {value}" for name, value in manifest.layout.items())
    types = Counter(entry.dtype for entry in checkpoint.entries.values())
    print(f"checkpoint  {checkpoint.directory}")
    print(f"step        {manifest.step:,}, written {written:%Y-%m-%d %H:%M:%S} UTC")
    print(f"layout      {layout}")
    print(
        f"model       hidden {model['hidden_size']}, {model['num_layers']} layers, {model['num_heads']} heads, "
        f"vocabulary {model['vocab_size']:,}"
    )
    print(f"tensors     {len(checkpoint.entries):,} ({', '.join(f'{count} {kind}' for kind, count in types.items())})")
    print(f"bytes       {sum(file.bytes for file in manifest.files):,} in {len(manifest.files)} files")
    print(f"versions    {', '.join(f'{name} {version}' for name, version in manifest.versions.items())}")
    if arguments.tensors:
        rows = [
            [entry.name, entry.dtype, str(list(entry.shape)), _borders(entry.slice), entry.file]
            for entry in manifest.tensors
        ]
        print("\n" + format_table(["tensor", "type", "shape", "part", "file"], rows))
    return 0


def _borders(cut: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{start}:{stop}" for start, stop in cut) or "-"


def _verify(arguments: argparse.Namespace) -> int:
    from pangu_alpha.checkpoint.load import Checkpoint, DamagedCheckpointError, list_checkpoints
    from pangu_alpha.checkpoint.run_directory import RunDirectory

    path = Path(arguments.directory)
    directories = list_checkpoints(RunDirectory(path).checkpoints) or list_checkpoints(path) or [path]
    damaged = 0
    for directory in directories:
        try:
            checkpoint = Checkpoint(directory)
            checkpoint.verify()
            size = sum(file.bytes for file in checkpoint.manifest.files)
            print(f"{directory}: good, {len(checkpoint.manifest.tensors):,} parts of tensors, {size:,} bytes")
        except DamagedCheckpointError as error:
            damaged += 1
            print(f"{error}")
    return 1 if damaged else 0


def _diff(arguments: argparse.Namespace) -> int:
    import numpy as np

    first, second = _opened(arguments.first), _opened(arguments.second)
    rows = []
    for name in sorted(first.entries.keys() | second.entries.keys()):
        if name not in first.entries or name not in second.entries:
            rows.append([name, f"only in the {'first' if name in first.entries else 'second'}", ""])
            continue
        one, other = dict(first.tensors([name]))[name], dict(second.tensors([name]))[name]
        if one.shape != other.shape:
            rows.append([name, f"{list(one.shape)} and {list(other.shape)}", ""])
        elif not np.array_equal(one, other):
            gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
            types = "" if one.dtype == other.dtype else f", {one.dtype} and {other.dtype}"
            rows.append([name, f"{int((gap > 0).sum()):,} of {one.size:,} values{types}", f"{gap.max():.3g}"])
    if not rows:
        print(f"all {len(first.entries):,} tensors are equal")
        return 0
    print(format_table(["tensor", "differs", "by at most"], rows))
    return 1


def _convert(arguments: argparse.Namespace) -> int:
    from pangu_alpha.checkpoint.reshard import convert
    from pangu_alpha.checkpoint.run_directory import RunDirectory, find_tokenizer
    from pangu_alpha.data.tokenizer import Tokenizer
    from pangu_alpha.files import atomic_write
    from pangu_alpha.parallel.layout import layout_of

    source = _opened(arguments.source)
    # The checkpoint's own model, where no configuration names one.
    own = model_words(source.manifest.config["model"]) if arguments.config is None else []
    loaded, _ = load_run(arguments.config, [*own, *arguments.overrides])
    run = RunDirectory(Path(arguments.to))
    vocabulary = find_tokenizer(source)
    fewer = loaded.config.model.vocab_size < source.entries["word_table"].shape[0]
    pieces = Tokenizer.load(vocabulary).vocab_size if fewer else 0
    directory = convert(source, run.checkpoints, loaded.config, arguments.precision, pieces)
    with atomic_write(run.tokenizer) as file:
        file.write(vocabulary.read_bytes())
    print(f"{directory}: step {source.step:,} for {layout_of(loaded.config)}")
    return 0
