"""`pangu-alpha model`: what a model consists of, by formula; nothing is allocated and MindSpore is not imported."""

from __future__ import annotations

import argparse
from itertools import groupby

from pangu_alpha.cli.common import add_config_arguments, format_table
from pangu_alpha.config_file import load_config
from pangu_alpha.model_table import model_parts, short_count, total_parameters

EXAMPLES = """
pangu-alpha model --config configs/models/200b.yaml
pangu-alpha model --config configs/models/2.6b.yaml model.query_layer=false
pangu-alpha model model.hidden_size=768 model.num_heads=12 model.num_layers=12
"""

# Bytes a parameter takes: the weight, or in training the fp32 weight and both fp32 moments of the optimizer.
SIZES = (("fp16 weights", 2), ("fp32 weights", 4), ("fp32 weights and optimizer moments", 12))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table of parts, the total and its bytes."""
    config = load_config(arguments.config, arguments.overrides).config
    model = config.model
    total = total_parameters(model)
    layers = f"{model.num_blocks} blocks" + (" and the query layer" if model.query_layer else ", no query layer")
    print(
        f"{config.name}: {layers}, hidden {model.hidden_size}, {model.num_heads} heads of {model.head_size}, "
        f"vocabulary {model.vocab_size}, {model.seq_length} positions\n"
    )
    rows = []
    for group, parts in groupby(model_parts(model), key=lambda part: part.group):
        members = list(parts)
        for number, part in enumerate(members):
            shape = " × ".join(map(str, part.shape))
            name = group if number == 0 else ""
            rows.append([name, part.name, shape, f"{part.count:,}", f"{part.parameters:,}", ""])
        subtotal = sum(part.parameters for part in members)
        rows[-1][-1] = f"{subtotal:,} ({subtotal / total:.1%})"
    print(format_table(["part", "tensor", "shape", "tensors", "parameters", "in all"], rows, right=(3, 4, 5)))
    print(f"\ntotal  {total:,} parameters ({short_count(total)})")
    for name, size in SIZES:
        print(f"       {total * size / 2**30:8,.2f} GiB  {name}")
    return 0
