"""Small models in every published form, written without the importer's code.

Slices are cut by MindSpore's own `transform_checkpoint_by_rank` with a strategy file as the official ones are;
.ckpt files are written by `mindspore.save_checkpoint`.  The names are spelled here once more, from the facts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore.train.node_strategy_pb2 import ParallelStrategyMap
from safetensors.numpy import save_file

from tests.checkpoint.formats.torch_writer import Tensor, save

Weights = dict[str, np.ndarray]
HIDDEN, LAYERS, HEADS, POSITIONS, DATA, MODEL = 16, 3, 2, 8, 4, 2
INNER = 56  # no whole multiple of HIDDEN, as nothing may assume one
RANKS = DATA * MODEL
PARTS = {
    "attention_norm": "layernorm1",
    "feed_forward_norm": "layernorm2",
    "attention.query": "attention.dense1",
    "attention.key": "attention.dense2",
    "attention.value": "attention.dense3",
    "attention.output": "attention.projection",
    "feed_forward.inner": "output.mapping",
    "feed_forward.output": "output.projection",
}
TABLES = {
    "official": (
        "backbone.word_embedding.embedding_table",
        "backbone.position_embedding.embedding_table",
        "backbone.top_query_embedding.embedding_table",
    ),
    "pipeline": (
        "embedding_table",
        "backbone.pangu_alpha_embedding.position_embedding.embedding_table",
        "backbone.top_query_embedding.embedding_table",
    ),
    "1.3": (
        "embedding_table",
        "backbone.embedding.embedding.position_embedding.embedding_table",
        "backbone.top_query_embedding_table",
    ),
    "mindformers": (
        "backbone.embedding.word_embedding.embedding_table",
        "backbone.embedding.position_embedding.embedding_table",
        "backbone.top_query_embedding.embedding_table",
    ),
    "mindformers npy": ("word_embedding_table", "position_embedding_table", "query_embedding_table"),
}
OUR_TABLES = ("word_table", "embedding.position_table", "query_layer.query_table")


def random_weights(vocabulary: int, dtype: str = "float32", seed: int = 5) -> Weights:
    """Weights by our names, nothing trivially zero or one."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"word_table": (vocabulary, HIDDEN)}
    shapes |= dict.fromkeys(OUR_TABLES[1:], (POSITIONS, HIDDEN))
    shapes |= {"final_norm.gamma": (HIDDEN,), "final_norm.beta": (HIDDEN,)}
    for layer in (*(f"blocks.{number}" for number in range(LAYERS - 1)), "query_layer.block"):
        for norm in ("attention_norm", "feed_forward_norm"):
            shapes |= {f"{layer}.{norm}.gamma": (HIDDEN,), f"{layer}.{norm}.beta": (HIDDEN,)}
        for name in ("query", "key", "value", "output"):
            shapes |= {
                f"{layer}.attention.{name}.weight": (HIDDEN, HIDDEN),
                f"{layer}.attention.{name}.bias": (HIDDEN,),
            }
        shapes |= {
            f"{layer}.feed_forward.inner.weight": (HIDDEN, INNER),
            f"{layer}.feed_forward.inner.bias": (INNER,),
            f"{layer}.feed_forward.output.weight": (INNER, HIDDEN),
            f"{layer}.feed_forward.output.bias": (HIDDEN,),
        }
    return {name: (0.5 * random.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def mindspore_name(name: str, variant: str) -> str:
    """Ours -> what a MindSpore code calls it."""
    if name in OUR_TABLES:
        return TABLES[variant][OUR_TABLES.index(name)]
    for ours, theirs in PARTS.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    name = name.replace("final_norm", "layernorm")
    last = f"blocks.{LAYERS - 1}" if variant == "pipeline" else "top_query_layer"
    return "backbone." + name.replace("query_layer.block", last)


def by_mindspore_names(weights: Mapping[str, np.ndarray], variant: str = "official") -> Weights:
    return {mindspore_name(name, variant): value for name, value in weights.items()}


def save_ckpt(tensors: Mapping[str, np.ndarray], path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parameters = [{"name": name, "data": ms.Tensor(value)} for name, value in tensors.items()]
    ms.save_checkpoint(parameters, str(path), **options)


def merged(weights: Weights, folder: Path, variant: str = "official", **options) -> Path:
    path = folder / "merged" / "Pangu-alpha.ckpt"
    save_ckpt(by_mindspore_names(weights, variant), path, **options)
    return path


def cut_axis(name: str) -> int | None:
    """The axis that model parallelism cuts, by the official strategy files; None for what is whole everywhere."""
    if "dense" in name:
        return 0
    if name.endswith("mapping.weight"):
        return 1
    if name.endswith(("mapping.bias", "projection.weight")):
        return 0
    return None


def strategy_file(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """As the official ones: device matrix [data, model], optimizer sharding of what is cut, the moments too."""
    strategy = ParallelStrategyMap()
    strategy.current_stage = 1
    for prefix in ("adam_v.", "", "adam_m."):
        for name, value in tensors.items():
            item = strategy.parallel_layout_item.add()
            item.param_name = prefix + name
            layout = item.parallel_layouts
            layout.dev_matrix.add().dim.extend([DATA, MODEL])
            axis = cut_axis(name)
            layout.tensor_map.add().dim.extend(0 if number == axis else -1 for number in range(value.ndim))
            layout.param_split_shape.add()
            layout.indices_offset.add()
            sharded = axis is not None
            layout.field = 0
            layout.opt_weight_shard_step, layout.opt_weight_shard_size = (MODEL, -1) if sharded else (0, 0)
    path.write_bytes(strategy.SerializeToString())


def slices(weights: Weights, folder: Path) -> Path:
    """The release: filerted_*.ckpt, three tables, the strategy file."""
    tensors = by_mindspore_names(weights)
    place = folder / "slices"
    place.mkdir(parents=True)
    whole, strategy = folder / "whole.ckpt", place / "pangu_alpha_small_ckpt_strategy.ckpt"
    save_ckpt(tensors, whole)
    strategy_file(tensors, strategy)
    for rank in range(RANKS):
        cut = folder / f"cut_{rank}.ckpt"
        ms.transform_checkpoint_by_rank(rank, {0: str(whole)}, str(cut), None, str(strategy))
        found = ms.load_checkpoint(str(cut))
        kept = {name: value.asnumpy() for name, value in found.items() if "embedding" not in name}
        save_ckpt(kept, place / f"filerted_{rank}.ckpt")
    for name, table in zip(("word_embedding", "position_embedding", "top_query_embedding"), OUR_TABLES, strict=True):
        np.save(place / f"{name}.npy", weights[table])
    return place


def numpy_folder(weights: Weights, folder: Path) -> Path:
    place = folder / "npy"
    place.mkdir(parents=True)
    for name, value in by_mindspore_names(weights).items():
        np.save(place / f"{name}.npy", value)
    return place


def torch_layer(weights: Weights, ours: str, theirs: str, parts: Mapping[str, str]) -> dict[str, Tensor]:
    """One layer; PyTorch's linear weights are [out, in], and some are views of a transpose."""
    result = {}
    for part, name in parts.items():
        for kind, other in (("weight", "weight"), ("bias", "bias"), ("gamma", "weight"), ("beta", "bias")):
            value = weights.get(f"{ours}.{part}.{kind}")
            if value is None:
                continue
            turned = kind == "weight" and part in ("attention.output", "feed_forward.inner", "feed_forward.output")
            if turned and part == "feed_forward.inner":
                result[f"{theirs}{name}.{other}"] = Tensor(value, transposed=True)
            else:
                result[f"{theirs}{name}.{other}"] = Tensor(value.T if turned else value)
    return result


def megatron(weights: Weights, folder: Path, plain: bool = False, padding: int = 5, name: str = "pt") -> Path:
    """The Megatron port: nested dictionaries, float16, the word table padded."""
    parts = {
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "attention.query": "attention.query",
        "attention.key": "attention.key",
        "attention.value": "attention.value",
        "attention.output": "attention.dense",
        "feed_forward.inner": "mlp.dense_h_to_4h",
        "feed_forward.output": "mlp.dense_4h_to_h",
    }
    transformer = {
        "final_layernorm.weight": Tensor(weights["final_norm.gamma"]),
        "final_layernorm.bias": Tensor(weights["final_norm.beta"]),
    }
    for number in range(LAYERS - 1):
        transformer |= torch_layer(weights, f"blocks.{number}", f"layers.{number}.", parts)
    transformer |= torch_layer(weights, "query_layer.block", "topQueryLayer.", parts)
    word = weights["word_table"]
    # Rows that would win every time if anything asked for them.
    signs = np.resize([1, -1], (padding, 1)) * np.sign(word[:1])
    padded = np.concatenate([word, (50 * signs).astype(word.dtype)])
    language_model = {
        "embedding": {
            "word_embeddings": {"weight": Tensor(padded)},
            "position_embeddings": {"weight": Tensor(weights["embedding.position_table"])},
        },
        "topQueryEmbedding": {"top_query_embeddings": {"weight": Tensor(weights["query_layer.query_table"])}},
        "transformer": transformer,
    }
    place = folder / "megatron" / "iter_0001000" / "mp_rank_00"
    place.mkdir(parents=True)
    save({"model": {"language_model": language_model}, "iteration": 1000}, place / f"model_optim_rng.{name}", plain)
    (folder / "megatron" / "latest_checkpointed_iteration.txt").write_text("1000")
    return folder / "megatron"


def hugging_face_tensors(weights: Weights) -> dict[str, Tensor]:
    parts = {
        "attention_norm": "ln_1",
        "feed_forward_norm": "ln_2",
        "attention.query": "attn.q_proj",
        "attention.key": "attn.k_proj",
        "attention.value": "attn.v_proj",
        "attention.output": "attn.c_proj",
        "feed_forward.inner": "mlp.c_fc",
        "feed_forward.output": "mlp.c_proj",
    }
    result = {
        "transformer.wte.weight": Tensor(weights["word_table"]),
        "transformer.wpe.weight": Tensor(weights["embedding.position_table"]),
        "transformer.wqe.weight": Tensor(weights["query_layer.query_table"]),
        "transformer.ln_f.weight": Tensor(weights["final_norm.gamma"]),
        "transformer.ln_f.bias": Tensor(weights["final_norm.beta"]),
    }
    for number in range(LAYERS):
        ours = f"blocks.{number}" if number < LAYERS - 1 else "query_layer.block"
        result |= torch_layer(weights, ours, f"transformer.h.{number}.", parts)
        result[f"transformer.h.{number}.attn.bias"] = Tensor(np.tril(np.ones((1, 1, POSITIONS, POSITIONS), np.uint8)))
    result["lm_head.weight"] = Tensor(weights["word_table"])
    return result


def hugging_face(weights: Weights, folder: Path, kind: str = "bin", files: int = 1) -> Path:
    """A gpt_pangu folder: pytorch_model.bin or model.safetensors, in one file or several with an index."""
    place = folder / "hf"
    place.mkdir(parents=True)
    config = {"model_type": "gpt_pangu", "num_heads": HEADS, "num_layers": LAYERS, "activation_function": "gelu"}
    (place / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-5}))
    tensors = hugging_face_tensors(weights)
    if kind == "safetensors":
        del tensors["lm_head.weight"]  # a tied tensor is kept once there
    stem, ending = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
    names = list(tensors)
    groups = [names[number::files] for number in range(files)]
    places = {}
    for number, group in enumerate(groups):
        name = f"{stem}.{ending}" if files == 1 else f"{stem}-{number + 1:05d}-of-{files:05d}.{ending}"
        some = {key: tensors[key] for key in group}
        places |= dict.fromkeys(group, name)
        if kind == "bin":
            save(some, place / name)
        else:
            arrays = {key: item.values.T if item.transposed else item.values for key, item in some.items()}
            save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, place / name)
    if files > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": places}
        (place / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return place
