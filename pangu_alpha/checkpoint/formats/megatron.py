"""The Megatron port PanGu-Alpha-GPU: one float16 .pt (or .pth) for each part of a model-parallel run."""

from __future__ import annotations

from pathlib import Path

from pangu_alpha.checkpoint.formats.names.megatron import MEGATRON
from pangu_alpha.checkpoint.formats.tensors import ForeignWeights, StoredTensor
from pangu_alpha.checkpoint.formats.torch_file import read_torch_file
from pangu_alpha.errors import PanguError

FILES = ("model_optim_rng.pt", "model_optim_rng.pth")
NEWEST = "latest_checkpointed_iteration.txt"
_PREFIX = "model.language_model."


def find_file(path: Path) -> Path | None:
    """The one file of a folder of the port, or of a folder that holds it; None if there is none.

    Raises:
        PanguError: the model is in parts, or there are several iterations and nothing tells which is meant.
    """
    found = sorted(item for name in FILES for item in path.rglob(name))
    newest = path / NEWEST
    if len(found) > 1 and newest.is_file():
        number = newest.read_text(encoding="utf-8", errors="replace").strip()
        name = f"iter_{int(number):07d}" if number.isdigit() else number
        found = [item for item in found if name in item.parts] or found
    if len(found) > 1 and len({item.parent.parent for item in found}) == 1:
        raise PanguError(
            f"{path}: a model in {len(found)} parts ({found[0].parent.name} …); join them first with the port's own "
            "tools/merge_mp_partitions.py"
        )
    if len(found) > 1:
        raise PanguError(f"{path}: {len(found)} checkpoints; name one of them: {found[-1]}")
    return found[0] if found else None


def is_megatron(tensors: dict[str, StoredTensor]) -> bool:
    """Whether names of a PyTorch file are those of the port."""
    return any(name.startswith(_PREFIX) for name in tensors)


def megatron(path: Path, tensors: dict[str, StoredTensor] | None = None) -> ForeignWeights:
    """The weights in a file of the port; the optimizer's state beside them is passed over."""
    found = read_torch_file(path) if tensors is None else tensors
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in found.items() if name.startswith(_PREFIX)}
    if not weights:
        raise PanguError(f"{path}: no {_PREFIX}… in it: not a checkpoint of the Megatron port")
    return ForeignWeights("Megatron port", path, weights, (MEGATRON,))
