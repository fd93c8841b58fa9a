"""`pangu-alpha checkpoint import`: published weights, in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pangu_alpha.cli.common import add_config_arguments

EXAMPLES = """
pangu-alpha checkpoint import --from 2.6B/ --to runs/2.6b
pangu-alpha checkpoint import --from pytorch_model.bin --to runs/mine model.num_heads=12
"""


def add_actions(actions: Any) -> None:
    """Add `import` to the actions of `pangu-alpha checkpoint`; each sets `act`, the function that does it."""
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
