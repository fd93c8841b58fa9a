"""Hugging Face folders of the gpt_pangu port: config.json with pytorch_model.bin or model.safetensors, also sharded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.formats.names.hugging_face import HUGGING_FACE
from pangu_alpha.checkpoint.formats.safetensors_file import read_safetensors
from pangu_alpha.checkpoint.formats.tensors import ForeignWeights, StoredTensor
from pangu_alpha.checkpoint.formats.torch_file import read_torch_file
from pangu_alpha.errors import PanguError
from pangu_alpha.files import storage_error

logger = logging.getLogger(__name__)

CONFIG = "config.json"
OWN_KEY = "pangu_alpha"
"""Key of config.json under which our own export keeps the settings of the model that the port has no word for."""
_WEIGHTS: tuple[tuple[str, Callable[[Path], dict[str, StoredTensor]]], ...] = (
    ("model.safetensors", read_safetensors),
    ("pytorch_model.bin", read_torch_file),
)


def is_hugging_face(path: Path) -> bool:
    """Whether a folder looks like one of Hugging Face."""
    names = [name for name, _ in _WEIGHTS]
    return any((path / name).is_file() or (path / f"{name}.index.json").is_file() for name in names)


def hugging_face(path: Path) -> ForeignWeights:
    """The weights of a folder.

    Raises:
        PanguError: one line: a file that the index names is missing, lacks a tensor, or is damaged.
    """
    settings = _settings(path / CONFIG) if (path / CONFIG).is_file() else {}
    for name, reader in _WEIGHTS:
        index = path / f"{name}.index.json"
        if index.is_file():
            return ForeignWeights(
                "Hugging Face port, several files", path, _indexed(index, reader), (HUGGING_FACE,), settings
            )
        if (path / name).is_file():
            return single_file(path / name, reader(path / name), settings)
    raise PanguError(f"{path}: neither model.safetensors nor pytorch_model.bin, nor an index of several, is there")


def single_file(
    path: Path, tensors: dict[str, StoredTensor], settings: Mapping[str, Any] | None = None
) -> ForeignWeights:
    """One file of weights with the port's names."""
    if settings is None:
        settings = _settings(path.parent / CONFIG) if (path.parent / CONFIG).is_file() else {}
    return ForeignWeights("Hugging Face port", path, tensors, (HUGGING_FACE,), settings)


def _indexed(index: Path, reader: Callable[[Path], dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    content = _read_json(index)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise PanguError(f"{index}: it has no weight_map that names a file for each tensor; get it again")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(places.values())):
        path = index.parent / file
        if Path(file).name != file or not path.is_file():
            raise PanguError(f"{index}: it names {file}, which is not there; get it")
        found = reader(path)
        for name in (name for name, place in places.items() if place == file):
            if name not in found:
                raise PanguError(f"{path}: tensor {name} is missing; {index.name} says that it is there")
            tensors[name] = found[name]
    return tensors


def _settings(path: Path) -> dict[str, Any]:
    """What config.json tells of the model, in our words."""
    content = _read_json(path)
    kind = content.get("model_type")
    if kind not in ("gpt_pangu", "pangu"):
        raise PanguError(f"{path}: model_type is {kind!r}; only gpt_pangu folders hold a PanGu-α")
    settings: dict[str, Any] = {}
    if isinstance(content.get("num_heads"), int):
        settings["num_heads"] = content["num_heads"]
    if isinstance(content.get("layer_norm_epsilon"), float):
        settings["layer_norm_epsilon"] = content["layer_norm_epsilon"]
    own = content.get(OWN_KEY)
    if isinstance(own, dict):
        settings.update({str(key): value for key, value in own.items()})
    elif content.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        logger.info(
            "%s says activation_function %s; the released weights were trained with the tanh form, which is taken "
            "(model.activation=gelu_erf computes what the port does)",
            path,
            content["activation_function"],
        )
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise storage_error(error, path, "read") from None
    except ValueError as error:
        raise PanguError(f"{path}: no JSON ({error}); get it again") from None
    if not isinstance(content, dict):
        raise PanguError(f"{path}: it must hold a JSON object; get it again")
    return content
