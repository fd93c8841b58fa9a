"""Which run a configuration is: its output directory, and whether a directory holds the same run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.config import Config, to_dict
from pangu_alpha.errors import PanguError

logger = logging.getLogger(__name__)

_LOOP_ONLY = (
    "steps", "device", "output", "resume", "sink_size", "checkpoint_every", "keep_checkpoints", "keep_every",
    "keep_best", "validate_every",
    "validation_samples", "log_every", "health_every", "peak_tflops", "profile",
)  # fmt: skip
"""Settings of `train` that may change while the run stays the same: they decide when, where and what is looked at."""


_MAY_CHANGE = ("batch_size", "micro_batches", "skip_norm_factor")
"""Settings of `train` that give other numbers, and that a run may go on with all the same: it is counted in samples."""
_UNNAMED = {"skip_norm_factor": 0.0}
"""Those of them that `train.output: auto` does not name, so that the same command goes on; it takes these values."""
_NEWER = {("model", "softmax_dtype"): "float32", ("train", "init_from"): ""}
"""Settings that came later, with the value that all runs before had."""


def run_identity(config: Config, data_fingerprint: str) -> dict[str, Any]:
    """Everything that decides the numbers of a run, as plain JSON."""
    sections = to_dict(config)
    order = ("reset_positions", "reset_attention", "order", "permuted_share", "span_length", "shuffle")
    return {
        "model": {key: value for key, value in sections["model"].items() if _decides("model", key, value)},
        "optimizer": sections["optimizer"],
        "loss_scale": sections["loss_scale"],
        "data": {key: sections["data"][key] for key in order},
        "train": {
            key: value
            for key, value in sections["train"].items()
            if key not in _LOOP_ONLY and _decides("train", key, value)
        },
        "text": {"fingerprint": data_fingerprint},
    }


def _decides(section: str, key: str, value: Any) -> bool:
    """Whether a setting is named: one newer than some runs is not at its default, so that they keep their names."""
    return _NEWER.get((section, key)) != value


def output_directory(config: Config, identity: Mapping[str, Any], runs: Path) -> Path:
    """`train.output`, or runs/<name>-<fingerprint> where it is auto: a changed configuration is a new run."""
    if config.train.output != "auto":
        return Path(config.train.output)
    named = {**identity, "train": {**identity["train"], **_UNNAMED}}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    return runs / f"{config.name}-{digest[:8]}"


def require_same_run(directory: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compare the identity that a checkpoint carries with the present one.

    A changed batch or skip_norm_factor is only told: the run goes on at the exact next sample.

    Raises:
        PanguError: one line with the first setting that differs.
    """
    before = run_identity(Config(), "")  # a setting that is newer than the run had its default then
    for section, values in here.items():
        for key in {**values, **{name: None for kind, name in _NEWER if kind == section}}:
            default = _NEWER.get((section, key), before[section].get(key))
            value, found = values.get(key, default), there.get(section, {}).get(key, default)
            if found != value and section == "train" and key in _MAY_CHANGE:
                logger.warning("%s: train.%s was %s, and is %s from now on", directory, key, found, value)
            elif found != value:
                what = (
                    "other text or another vocabulary"
                    if section == "text"
                    else (f"{section}.{key} {found!r}, and {value!r} is asked for now")
                )
                raise PanguError(
                    f"{directory} holds a run with {what}; give this run another train.output "
                    "(train.output=auto names it by its settings), or go back to those settings"
                )
