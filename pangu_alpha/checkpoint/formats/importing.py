"""From somebody's weights to a checkpoint of this program: names, shapes, what the form doesn't say, and the copy."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.formats.names.table import NameTable, nearest_table
from pangu_alpha.checkpoint.formats.published_shapes import PublishedShape, published_shape
from pangu_alpha.checkpoint.formats.recognise import open_weights
from pangu_alpha.checkpoint.formats.tensors import ForeignWeights, StoredTensor
from pangu_alpha.checkpoint.run_directory import RunDirectory
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config, ModelConfig, TokenizerConfig
from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.config_file import DEFAULT, load_config
from pangu_alpha.data.official_vocabulary import OFFICIAL_SHA256, official_vocabulary
from pangu_alpha.data.tokenizer import Tokenizer
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import atomic_directory
from pangu_alpha.progress import Progress

logger = logging.getLogger(__name__)

_ASK = "give it on the command line, such as model.{key}={example}, or a --config FILE that has it"


@dataclass(frozen=True)
class Imported:
    """What an import has found and written."""

    form: str
    """The form that was recognised."""
    variant: str
    """Whose names the tensors had."""
    config: Config
    """The configuration of the checkpoint."""
    checkpoint: Path
    """Directory of the checkpoint."""
    parameters: int
    """Numbers in all tensors."""
    padding_rows: int
    """Rows of the word table beyond the vocabulary, which were left out."""


def import_weights(
    source: Path,
    destination: Path,
    config_path: str | None = None,
    overrides: Sequence[str] = (),
    tokenizer: Path | None = None,
    strategy: Path | None = None,
    dtype: str = "stored",
) -> Imported:
    """Read weights in any published form, and write them as a run directory with one checkpoint.

    One tensor is in memory at a time.

    Args:
        source: file or folder; its form is recognised.
        destination: new directory; `generate`, `convert`, `export` and `train.init_from` take it.
        config_path: configuration with what the form doesn't say, None for none.
        overrides: `model.key=value` words for the same; they win.
        tokenizer: sentencepiece model that the ids belong to; None takes the one beside the weights, else the official.
        strategy: strategy file of slices, where it does not lie with them.
        dtype: float32, float16, or stored: as the weights are.

    Raises:
        UsageError: something has to be told, or was told and contradicts the weights.
        PanguError: the weights are damaged or incomplete; one line.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise PanguError(f"{destination} is there already; give another --to DIR, or remove it")
    loaded = load_config(config_path, overrides)
    weights = open_weights(source, strategy)
    table = nearest_table(weights.tables, weights.tensors)
    found = _by_our_names(weights, table)
    told = {key: value for key, value in loaded.sources.items() if value != DEFAULT}
    vocabulary = Tokenizer.load(tokenizer or weights.vocabulary or official_vocabulary())
    model = _model_config(weights, table, found, loaded.config.model, told, vocabulary.vocab_size)
    rows = found["word_table"].shape[0]
    found["word_table"] = found["word_table"].first_rows(model.vocab_size)
    _check_shapes(weights, found, model)
    if dtype != "stored":
        found = {name: tensor.as_type(np.dtype(dtype)) for name, tensor in found.items()}
    name = loaded.config.name if "name" in told else _name(model)
    official = vocabulary.sha256 == OFFICIAL_SHA256
    text = TokenizerConfig() if official else TokenizerConfig("file", str(RunDirectory(destination).tokenizer))
    config = dataclasses.replace(loaded.config, name=name, model=model, tokenizer=text)
    checkpoint = _write(destination, config, found, vocabulary, weights, table)
    total = sum(tensor.size for tensor in found.values())
    return Imported(weights.form, table.variant, config, checkpoint, total, rows - model.vocab_size)


def _by_our_names(weights: ForeignWeights, table: NameTable) -> dict[str, StoredTensor]:
    """Every tensor of the model under our name and the right way round; PanguError for a missing or an extra one."""
    missing, extra = table.mismatch(weights.tensors)
    names = table.names(max(2, table.count_layers(weights.tensors)))
    if len(missing) == len(names) or not table.count_layers(weights.tensors):
        example = next(iter(sorted(weights.tensors)), "none")
        raise PanguError(f"{weights.path}: no weights of a PanGu-α under a known name (found: {example})")
    if missing:
        raise PanguError(f"{weights.path}: tensor {_some(missing)} is missing (names of the {table.variant})")
    if extra:
        place = weights.tensors[extra[0]].place
        raise PanguError(f"{place}: tensor {_some(extra)} has no place in a PanGu-α (names of the {table.variant})")
    tensors = dict(weights.tensors)
    for tied, name in table.aliases.items():
        if name not in tensors:
            tensors[name] = tensors[tied]
    result = {}
    for ours, theirs in names.items():
        tensor = tensors[theirs]
        if tensor.dtype.kind != "f":
            raise PanguError(f"{tensor.place}: tensor {theirs} has type {tensor.dtype}; weights are floating-point")
        result[ours] = tensor.transposed() if table.is_transposed(ours) and tensor.ndim == 2 else tensor
    return result


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _model_config(
    weights: ForeignWeights,
    table: NameTable,
    found: Mapping[str, StoredTensor],
    given: ModelConfig,
    told: Mapping[str, str],
    pieces: int,
) -> ModelConfig:
    """Shape and numerics: by the weights, then the user, then the form, then what was published."""
    word, position = found["word_table"], found["embedding.position_table"]
    inner = found["query_layer.block.feed_forward.inner.weight"]
    if {word.ndim, position.ndim, inner.ndim} != {2}:
        raise PanguError(f"{weights.path}: the tables and weights have shapes that no PanGu-α has")
    layers = table.count_layers(weights.tensors)
    shown: dict[str, Any] = {
        "hidden_size": word.shape[1],
        "num_layers": layers,
        "seq_length": position.shape[0],
        "feed_forward_ratio": inner.shape[1] / inner.shape[0],
        "query_layer": True,
    }
    for key, value in shown.items():
        if f"model.{key}" in told and getattr(given, key) != value:
            raise UsageError(
                f"{told[f'model.{key}']}: model.{key} is {getattr(given, key)}; {weights.path} holds a model with "
                f"{value}"
            )
    rows = word.shape[0]
    if pieces > rows:
        raise PanguError(
            f"{word.place}: the word table has {rows} rows; the vocabulary has {pieces} pieces: name the right one "
            "with --tokenizer FILE"
        )
    wanted = given.vocab_size if "model.vocab_size" in told else pieces
    if not pieces <= wanted <= rows:
        raise UsageError(
            f"{told['model.vocab_size']}: model.vocab_size is {wanted}; it must lie between the vocabulary's {pieces} "
            f"and the {rows} rows of {word.place}"
        )
    known = published_shape(word.shape[1], layers)
    numerics = {
        key: value
        for key, value in weights.settings.items()
        if key in ModelConfig.__dataclass_fields__ and f"model.{key}" not in told and key not in shown
    }
    asked = {key: getattr(given, key) for key in ModelConfig.__dataclass_fields__}
    values = asked | shown | numerics | {"vocab_size": wanted}
    for key, answer in (("num_heads", _heads(known)), ("final_norm", _norm(table, known))):
        if f"model.{key}" not in told and key not in numerics:
            values[key] = answer or _ask(weights, key, word.shape[1], layers)
    try:
        return ModelConfig(**values)
    except InvalidValue as error:
        source = told.get(f"model.{error.key}", str(weights.path))
        raise UsageError(f"{source}: model.{error.key} is {error.value!r}; {error.allowed}") from None


def _heads(known: PublishedShape | None) -> int | None:
    return known.num_heads if known else None


def _norm(table: NameTable, known: PublishedShape | None) -> str | None:
    return table.final_norm or (known.final_norm if known else None)


def _ask(weights: ForeignWeights, key: str, hidden: int, layers: int) -> Any:
    example = {"num_heads": "4", "final_norm": "before_query"}[key]
    raise UsageError(
        f"{weights.path}: it doesn't tell model.{key}, and hidden size {hidden} with {layers} layers is no published "
        f"size; {_ASK.format(key=key, example=example)}"
    )


def _check_shapes(weights: ForeignWeights, found: Mapping[str, StoredTensor], model: ModelConfig) -> None:
    hidden, inner = model.hidden_size, model.feed_forward_size
    shapes = {
        "word_table": (model.vocab_size, hidden),
        "embedding.position_table": (model.seq_length, hidden),
        "query_layer.query_table": (model.seq_length, hidden),
        "feed_forward.inner.weight": (hidden, inner),
        "feed_forward.inner.bias": (inner,),
        "feed_forward.output.weight": (inner, hidden),
    }
    for name, tensor in found.items():
        ending = name if name in shapes else ".".join(name.split(".")[-3:])
        expected = shapes.get(ending, (hidden, hidden) if name.endswith("weight") else (hidden,))
        if tensor.shape != expected:
            raise PanguError(
                f"{tensor.place}: {name} has shape {list(tensor.shape)}; {list(expected)} belongs to a model of hidden "
                f"size {hidden} ({weights.form})"
            )


def _name(model: ModelConfig) -> str:
    known = published_shape(model.hidden_size, model.num_layers)
    return known.name if known else "imported"


def _write(
    destination: Path,
    config: Config,
    found: Mapping[str, StoredTensor],
    vocabulary: Tokenizer,
    weights: ForeignWeights,
    table: NameTable,
) -> Path:
    total = sum(tensor.nbytes for tensor in found.values())
    with atomic_directory(destination) as partial, Progress("importing", total / 2**20, "MiB") as progress:
        run = RunDirectory(partial)
        run.tokenizer.parent.mkdir(parents=True)
        vocabulary.save(run.tokenizer)

        def counted(tensor: StoredTensor) -> StoredTensor:
            def read() -> np.ndarray:
                values = tensor.read()
                progress.advance(tensor.nbytes / 2**20)
                return values

            return dataclasses.replace(tensor, read=read)

        arrays: Any = {name: counted(tensor) for name, tensor in found.items()}
        state = {"step": 0, "imported": {"form": weights.form, "names": table.variant, "source": weights.path.name}}
        written = save_checkpoint(run.checkpoints, 0, arrays, state, config, vocabulary.sha256)
        relative = written.relative_to(partial)
    return destination / relative
