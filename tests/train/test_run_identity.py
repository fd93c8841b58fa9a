"""Which settings make another run, and what is said where a directory holds another one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pangu_alpha.config import Config, to_dict
from pangu_alpha.errors import PanguError
from pangu_alpha.train.run_identity import output_directory, require_same_run, run_identity

OTHER = {  # for settings whose type alone doesn't say what else is allowed
    "dropout_generator": "counter",
    "initial_values": "width_scaled",
    "final_norm": "after_query",
    "activation": "gelu_erf",
    "compute_dtype": "float16",
    "softmax_dtype": "float16",
    "order": "mixed",
    "schedule": "constant",
    "kind": "sgd",
    "device": "cpu",
    "resume": "never",
    "profile": "1-2",
    "tail": "pad",
    "hidden_size": 5120,
    "num_heads": 16,
    "steps": 4000,
    "batch_size": 16,
    "micro_batches": 2,
    "sink_size": 0,  # no other value fits the defaults of the rest
    "peak_tflops": 1.0,
    "factor": 4.0,
    "infills": ("一[MASK]",),
}
MAY_CHANGE = ("batch_size", "micro_batches", "skip_norm_factor")
SAME_RUN = {
    "train": {
        "steps",
        "device",
        "output",
        "resume",
        "sink_size",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_every",
        "keep_best",
        "validate_every",
        "validation_samples",
        "log_every",
        "health_every",
        "peak_tflops",
        "profile",
    },
    # What these decide is in the text's fingerprint.
    "data": {"sources", "prepared", "text_key", "encoding", "held_out_share", "drop_duplicates", "tail", "workers"},
    "tokenizer": {"kind", "path", "train_characters"},
    "report": {"prompts", "infills", "baseline"},
}


def other_value(key: str, value: object) -> object:
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value * 0.5 if value else 0.5
    if isinstance(value, int):
        return value + 1
    return (*value, "other") if isinstance(value, tuple) else "other"


@pytest.mark.parametrize("section", ["model", "data", "optimizer", "loss_scale", "train", "report"])
def test_every_setting_that_decides_numbers_makes_another_run(section: str, caplog) -> None:
    config = Config()
    here = run_identity(config, "text")
    place = output_directory(config, here, Path("runs"))
    for key, value in to_dict(getattr(config, section)).items():
        value = tuple(value) if isinstance(value, list) else value
        changed = dataclasses.replace(getattr(config, section), **{key: other_value(key, value)})
        there = run_identity(dataclasses.replace(config, **{section: changed}), "text")
        same = key in SAME_RUN.get(section, ())
        assert (there == here) == same, f"{section}.{key}"
        if not same:
            # auto gives the same directory where a message says that the same command goes on with another value.
            assert (output_directory(config, there, Path("runs")) == place) == (key == "skip_norm_factor")
            if key in MAY_CHANGE:  # a run is counted in samples, and goes on with another batch
                caplog.clear()
                require_same_run(Path("runs/one"), here, there)
                assert f"runs/one: train.{key} was {value}, and is {other_value(key, value)} from now on" in caplog.text
                continue
            with pytest.raises(PanguError, match=f"holds a run with {section}.{key} ") as error:
                require_same_run(Path("runs/one"), here, there)
            assert "\n" not in str(error.value)


def test_other_text_makes_another_run() -> None:
    here, there = run_identity(Config(), "text"), run_identity(Config(), "other text")
    assert output_directory(Config(), here, Path("r")) != output_directory(Config(), there, Path("r"))
    with pytest.raises(PanguError, match="other text or another vocabulary"):
        require_same_run(Path("runs/one"), here, there)
    require_same_run(Path("runs/one"), here, run_identity(Config(), "text"))


def test_a_directory_that_is_given_is_taken() -> None:
    config = Config(train=dataclasses.replace(Config().train, output="somewhere/else"))
    assert output_directory(config, run_identity(config, "text"), Path("runs")) == Path("somewhere/else")
    assert output_directory(Config(name="mine"), run_identity(Config(), "text"), Path("runs")).name.startswith("mine-")


def test_a_setting_newer_than_the_run_counts_as_its_default() -> None:
    here = run_identity(Config(), "text")
    there = {section: dict(values) for section, values in here.items()}
    del there["model"]["initial_values"]
    require_same_run(Path("run"), there, here)
    changed = dataclasses.replace(Config(), model=dataclasses.replace(Config().model, initial_values="width_scaled"))
    with pytest.raises(PanguError, match="model.initial_values 'published', and 'width_scaled'"):
        require_same_run(Path("run"), there, run_identity(changed, "text"))
