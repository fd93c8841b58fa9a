from __future__ import annotations

import pytest

from pangu_alpha.cli.main import main
from pangu_alpha.errors import PanguError
from pangu_alpha.rehearsal.emulator import emulation

PLAIN = (
    "model.num_layers=2", "parallel.pipeline_stages=1", "parallel.optimizer_shards=1", "parallel.data_parallel=1",
    "parallel.recompute=none", "train.micro_batches=1", "model.dropout=0",
)  # fmt: skip


def _run(repository, *words: str) -> int:
    return main(["emulate", "--config", str(repository / "configs" / "twins" / "all_five.yaml"), *words])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--plant", "weeds"), 2, "there is no planted error 'weeds'; allowed: wrong_strategy"),
        (("--steps", "0"), 2, "argument --steps: at least 1"),
        (("parallel.pipeline_stages=1", "--plant", "receive_without_send"), 2, "needs pipeline_stages of 2 or more"),
        (("parallel.model_parallel=3",), 2, "it must divide model.num_heads"),
    ],
)
def test_bad_use_is_one_line(capsys, repository, words, code, message):
    assert _run(repository, *words) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_of_one_device(capsys, repository):
    assert main(["emulate", "--config", str(repository / "configs" / "quickstart.yaml")]) == 2
    assert "this run has one device, so there is nothing to emulate" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "stages"), [((), 2), (("--stages", "4"), 4)])
def test_a_large_run_is_replaced_by_its_twin(capsys, monkeypatch, repository, words, stages):
    def stop(*arguments):
        raise PanguError("enough")

    monkeypatch.setattr(emulation, "compile_with_reference", stop)
    assert main(["emulate", "--config", str(repository / "configs" / "runs" / "200b_2048.yaml"), *words]) == 1
    captured = capsys.readouterr()
    assert f"{4 * stages} ranks: data 2, model 2, pipeline {stages}" in captured.out
    assert captured.err.endswith("pangu-alpha: enough\n")


@pytest.mark.slow
def test_a_run_and_an_error_planted_in_it(capsys, repository):
    assert _run(repository, *PLAIN, "--steps", "2", "--traffic") == 0
    shown = capsys.readouterr().out
    assert "2 ranks: data 1, model 2, pipeline 1" in shown
    assert "all ranks do what one device does" in shown
    assert "AllReduce" in shown
    assert _run(repository, *PLAIN, "--steps", "1", "--plant", "missing_all_reduce") == 1
    assert "DIFFERENT" in capsys.readouterr().out
    assert _run(repository, *PLAIN, "--steps", "1", "--plant", "mismatched_collective") == 1
    captured = capsys.readouterr()
    assert "planted" in captured.out
    assert "pangu-alpha: collectives do not match in group" in captured.err


@pytest.mark.slow
def test_a_product(capsys):
    assert main(["emulate", "--product", "inner"]) == 0
    shown = capsys.readouterr().out
    assert "MatMul sharded ((1, 4), (4, 1))" in shown
    assert shown.count("after AllReduce sum [4, 4]") == 4


def test_help_needs_no_mindspore(capsys):
    with pytest.raises(SystemExit):
        main(["emulate", "--help"])
    assert "--plant" in capsys.readouterr().out
