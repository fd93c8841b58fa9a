"""`pangu-alpha checkpoint import` and `export`: weights of other forms, in and out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pangu_alpha.cli.common import add_config_arguments, load_run, model_words
from pangu_alpha.errors import UsageError

EXAMPLES = """
pangu-alpha checkpoint import --from 2.6B/ --to runs/2.6b
pangu-alpha checkpoint import --from pytorch_model.bin --to runs/mine model.num_heads=12
"""

EXPORT_EXAMPLES = """
pangu-alpha checkpoint export --from runs/quickstart-35b22087 --to quickstart-hf --format hugging_face
pangu-alpha checkpoint export --from runs/2.6b --to 2.6b-ckpt --format ckpt --precision float16
pangu-alpha checkpoint export --from runs/2.6b --to 2.6b-ranks --format mindspore --config configs/runs/2.6b_8.yaml
"""
FORMS = {
    "hugging_face": "a folder that transformers loads",
    "ckpt": "one file of MindSpore with the names of the original release",
    "numpy": "a .npy file a tensor",
    "mindspore": "a folder of .ckpt a rank with the strategy file, for the layout of --config or parallel.… words",
    "mindspore_safetensors": "the same with safetensors",
}
PRECISIONS = ("stored", "float32", "float16")


def add_actions(actions: Any) -> None:
    """Add `import` and `export` to the actions of `pangu-alpha checkpoint`; each sets `act`, what does it."""
    importing = actions.add_parser(
        "import",
        help="take in published weights, whatever their form",
        description="Take in published weights: the released slices with their strategy file, a merged .ckpt, a folder "
        "of .npy files, a .pt of the Megatron port, or a gpt_pangu folder of Hugging Face. The form is recognised.",
        examples=EXAMPLES,
    )
    importing.add_argument("--from", dest="source", metavar="PATH", required=True, help="file or folder of weights")
    importing.add_argument("--to", metavar="DIR", required=True, help="new directory for the imported checkpoint")
    importing.add_argument(
        "--tokenizer", metavar="FILE", help="sentencepiece model (default: beside them, or official)"
    )
    importing.add_argument("--strategy", metavar="FILE", help="strategy file of slices (default: the one with them)")
    importing.add_argument(
        "--dtype", choices=("stored", "float32", "float16"), default="stored", help="type to keep (default: as stored)"
    )
    add_config_arguments(importing)
    importing.set_defaults(act=_import)
    exporting = actions.add_parser(
        "export",
        help="write weights in a form that others read",
        description="Write the weights of a checkpoint, of any layout, in a form that others read, with a model card: "
        + "; ".join(f"{form}, {what}" for form, what in FORMS.items())
        + ".",
        examples=EXPORT_EXAMPLES,
    )
    exporting.add_argument("--from", dest="source", metavar="DIR", required=True, help="a checkpoint, or a run")
    exporting.add_argument("--to", metavar="DIR", required=True, help="new directory")
    exporting.add_argument("--format", dest="form", choices=tuple(FORMS), required=True, help="of the weights")
    exporting.add_argument("--precision", choices=PRECISIONS, default="stored", help="of the weights (as stored)")
    exporting.add_argument("--vocabulary", metavar="FILE", help="sentencepiece model (default: the checkpoint's own)")
    exporting.add_argument("--config", metavar="FILE", help="with mindspore: a run whose layout the folders are for")
    exporting.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as parallel.model_parallel=4")
    exporting.set_defaults(act=_export)


def _import(arguments: argparse.Namespace) -> int:
    from pangu_alpha.checkpoint.formats.importing import import_weights
    from pangu_alpha.model_table import short_count

    done = import_weights(
        Path(arguments.source),
        Path(arguments.to),
        arguments.config,
        arguments.overrides,
        Path(arguments.tokenizer) if arguments.tokenizer else None,
        Path(arguments.strategy) if arguments.strategy else None,
        arguments.dtype,
    )
    model = done.config.model
    print(f"recognised   {done.form}; names of the {done.variant}")
    print(
        f"model        {short_count(done.parameters)} parameters: {model.num_layers} layers with the query layer, "
        f"hidden {model.hidden_size}, {model.num_heads} heads, vocabulary {model.vocab_size}"
    )
    if done.padding_rows:
        print(f"left out     {done.padding_rows} padding rows of the word table")
    print(
        f"computes     {model.activation}, norm {model.final_norm}, softmax in {model.softmax_dtype} "
        "(model.activation, model.final_norm, model.softmax_dtype)"
    )
    print(f"checkpoint   {done.checkpoint}")
    print(f"\nnext:\n  pangu-alpha generate --checkpoint {arguments.to} '今天'")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from pangu_alpha.checkpoint.formats.exporting import export_checkpoint
    from pangu_alpha.checkpoint.run_directory import find_checkpoint
    from pangu_alpha.model_table import short_count

    vocabulary = Path(arguments.vocabulary) if arguments.vocabulary else None
    source = find_checkpoint(arguments.source, wanted=lambda name: False)  # each tensor is checked when it is read
    layout = None
    if arguments.form.startswith("mindspore"):
        _, layout = load_run(arguments.config, [*model_words(source.manifest.config["model"]), *arguments.overrides])
    elif arguments.config or arguments.overrides:
        raise UsageError(f"--format {arguments.form} has no ranks; leave --config and parallel.… words out")
    done = export_checkpoint(source, Path(arguments.to), arguments.form, arguments.precision, vocabulary, layout)
    print(f"{done.directory}: {short_count(done.parameters)} parameters, {done.bytes:,} bytes, as {done.form}")
    return 0
