"""A folder that transformers loads: weights, settings, vocabulary, and the code of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.formats.hugging_face import CONFIG, OWN_KEY
from pangu_alpha.checkpoint.formats.names.hugging_face import HUGGING_FACE
from pangu_alpha.checkpoint.formats.safetensors_file import write_safetensors
from pangu_alpha.checkpoint.formats.tensors import StoredTensor
from pangu_alpha.config import Config
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD

FILE_BYTES = 5 * 10**9
"""A file of weights holds no more, as in Hugging Face's own folders."""
CODE = ("configuration_gpt_pangu.py", "modeling_gpt_pangu.py", "tokenization_gpt_pangu.py")
_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu", "fast_gelu": "fast_gelu"}


def write_hugging_face(
    folder: Path, tensors: Mapping[str, StoredTensor], config: Config, vocabulary: Path, file_bytes: int = FILE_BYTES
) -> None:
    """Fill `folder`.

    Args:
        folder: an empty directory.
        tensors: by our names.
        config: of the model.
        vocabulary: sentencepiece model.
        file_bytes: weights a file, at most (but one tensor at least).
    """
    names = HUGGING_FACE.names(config.model.num_layers)
    named = {
        names[ours]: tensor.transposed() if HUGGING_FACE.is_transposed(ours) and tensor.ndim == 2 else tensor
        for ours, tensor in tensors.items()
    }
    parts: list[dict[str, StoredTensor]] = [{}]
    for name, tensor in named.items():
        if parts[-1] and sum(item.nbytes for item in parts[-1].values()) + tensor.nbytes > file_bytes:
            parts.append({})
        parts[-1][name] = tensor
    if len(parts) == 1:
        write_safetensors(folder / "model.safetensors", parts[0])
    else:
        files = [f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors" for number in range(len(parts))]
        for file, part in zip(files, parts, strict=True):
            write_safetensors(folder / file, part)
        places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        total = sum(tensor.nbytes for tensor in named.values())
        _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})
    (kind,) = {tensor.dtype.name for tensor in named.values()}
    _write_json(folder / CONFIG, _settings(config, kind))
    _write_json(folder / "generation_config.json", {"eos_token_id": END_OF_TEXT, "pad_token_id": PAD})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GPTPanguTokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_gpt_pangu.GPTPanguTokenizer", None]},
            "model_max_length": config.model.seq_length,
            "padding_side": "left",
        },
    )
    (folder / "vocab.model").write_bytes(vocabulary.read_bytes())
    code = resources.files("pangu_alpha.checkpoint.formats") / "hugging_face_code"
    for name in CODE:
        (folder / name).write_text((code / name).read_text(encoding="utf-8"), encoding="utf-8")


def _settings(config: Config, kind: str) -> dict[str, Any]:
    model = config.model
    return {
        "architectures": ["GPTPanguForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_gpt_pangu.GPTPanguConfig",
            "AutoModelForCausalLM": "modeling_gpt_pangu.GPTPanguForCausalLM",
        },
        "model_type": "gpt_pangu",
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.seq_length,
        "hidden_size": model.hidden_size,
        "num_layers": model.num_layers,
        "num_heads": model.num_heads,
        "intermediate_size": model.feed_forward_size,
        "layer_norm_epsilon": model.layer_norm_epsilon,
        "activation_function": _ACTIVATIONS[model.activation],
        "final_norm": model.final_norm,
        "tie_word_embeddings": False,  # the head has no weight of its own: it uses the word table
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "pad_token_id": PAD,
        "torch_dtype": kind,
        OWN_KEY: {
            "num_heads": model.num_heads,
            "activation": model.activation,
            "final_norm": model.final_norm,
            "softmax_dtype": model.softmax_dtype,
            "layer_norm_epsilon": model.layer_norm_epsilon,
        },
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
