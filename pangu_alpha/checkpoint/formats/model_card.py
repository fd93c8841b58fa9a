"""The README of exported weights: what the model is, where it comes from, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pangu_alpha.checkpoint.load import Checkpoint, is_inference_tensor
from pangu_alpha.config import Config
from pangu_alpha.model_table import short_count

_UNKNOWN = "unknown"
_WEIGHTS = ("table", "gamma", "beta", "weight", "bias")
_RANKS = (
    "`mindspore.transform_checkpoints`, `load_distributed_checkpoint` and `unified_safetensors` take the folders of "
    "the ranks with `strategy.ckpt`; names are those of the original release, moments begin with `adam_m.`, `adam_v.`."
)
_LOAD = {
    "hugging_face": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", trust_remote_code=True)
inputs = tokenizer("今天", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```

The tokenizer needs `pip install jieba sentencepiece`.""",
    "mindspore": _RANKS,
    "mindspore_safetensors": _RANKS,
    "ckpt": "`mindspore.load_checkpoint(FILE)` reads it; names are those of the original release.",
    "numpy": "`numpy.load(FILE)` reads each; a file is named as its tensor was in the original release.",
}


def model_card(source: Checkpoint, config: Config, form: str) -> str:
    """Markdown; what the checkpoint does not know is said to be unknown.

    Args:
        source: whose manifest tells of training, data and versions.
        config: its configuration.
        form: of the export, which decides how it is loaded.
    """
    state, model, manifest = source.train_state, config.model, source.manifest
    weights = {name: entry for name, entry in source.entries.items() if is_inference_tensor(name)}
    parameters = sum(math.prod(entry.shape) for name, entry in weights.items() if name.endswith(_WEIGHTS))
    imported = state.get("imported")
    origin = f"trained, run {config.name}"
    if imported:
        origin = f"imported ({imported['form']}, names of the {imported['names']})"
    samples = state.get("samples")
    rows = {
        "parameters": f"{parameters:,} ({short_count(parameters)})",
        "layers": f"{model.num_layers}, the query layer among them",
        "hidden size": model.hidden_size,
        "heads": model.num_heads,
        "vocabulary": f"{model.vocab_size:,} pieces, SHA-256 {manifest.tokenizer_sha256}",
        "positions": model.seq_length,
        "activation": model.activation,
        "final norm": model.final_norm,
        "softmax": model.softmax_dtype,
        "origin": origin,
        "steps": f"{source.step:,}" if source.step else _UNKNOWN,
        "tokens seen": f"{samples * model.seq_length:,}" if samples else _UNKNOWN,
        "held-out perplexity": _perplexity(state),
        "order of tokens": config.data.order if not imported else _UNKNOWN,
        "training data": _data(config, state, bool(imported)),
        "licence of the weights": "unknown: it follows from the training data and, if imported, from the release",
        "written with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    about = "Weights of a PanGu-α (鹏程·盘古 α), a Chinese language model told which position to predict."
    back = "`pangu-alpha checkpoint import --from THIS_FOLDER --to runs/NAME` takes it back in."
    parts = (f"# {config.name}", about, f"| | |\n|---|---|\n{table}", "## Load it", _LOAD[form], back)
    return "\n\n".join(parts) + "\n"


def _perplexity(state: Mapping[str, Any]) -> str:
    score = state.get("held_out", {}).get("after")
    if score and score["tokens"]:
        return f"{math.exp(score['nats'] / score['tokens']):.2f} ({score['tokens']:,} tokens)"
    best = state.get("best")
    if best and best.get("step") and math.isfinite(best["loss"]):
        return f"{math.exp(best['loss']):.2f} at step {best['step']:,}, the best so far"
    return _UNKNOWN


def _data(config: Config, state: Mapping[str, Any], imported: bool) -> str:
    if imported:
        return _UNKNOWN
    fingerprint = state.get("identity", {}).get("text", {}).get("fingerprint", "")
    sources = config.data.prepared or ", ".join(config.data.sources)
    return f"{sources}{f' (fingerprint {fingerprint})' if fingerprint else ''}"
