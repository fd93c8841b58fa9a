"""The numbers of the table and of the JSON line."""

from __future__ import annotations

import dataclasses
import json

import pytest
from machine import describe_machine
from step_report import Times, aligned, summarize, table

from pangu_alpha.config import Config, ModelConfig


@pytest.fixture
def report():
    config = Config(name="small", model=ModelConfig(8000, 384, 6, 6, 256))
    told = {
        "ours": {"versions": {"mindspore": "2.10.0"}, "losses": [9.0, 8.0], "start_seconds": 9.0},
        "peer": {"versions": {"torch": "2.13.0"}, "losses": [9.0, 8.0], "start_seconds": 3.0,
                 "threads": 2, "attention": ["flash"]},
    }  # fmt: skip
    times = {
        "ours": Times([2.0, 1.0, 4.0], [0.0, 0.25, 0.5], [3e11, 2e11, 1e11]),
        "peer": Times([1.0, 2.0, 4.0], [None, None, None], [1e11, 4e11, 1e11]),
    }
    return summarize(config, describe_machine(), told, times, 1e-6)


def test_ratios_are_those_of_single_rounds(report):
    ours, peer = report.rows
    assert dataclasses.astuple(ours.ratios["peer"]) == (1.0, 0.5, 2.0)
    assert peer.ratios == {}
    assert (ours.median, ours.minimum, ours.others) == (2.0, 1.0, 0.25)
    assert peer.others is None


def test_shares_are_of_the_best_product_of_any_library(report):
    ours = report.rows[0]
    assert report.peak == 4e11
    assert ours.tokens_per_second == 8 * 256 / 2.0
    assert ours.share_of_peak == pytest.approx(85.671936e6 * 1024 / 4e11)  # FLOPs of a token: see tests/train


def test_the_report_is_json(report):
    assert json.loads(json.dumps(dataclasses.asdict(report)))["rows"][0]["ratios"]["peer"]["lowest"] == 0.5


def test_the_table_says_what_was_compared(report):
    text = table(report)
    for part in ("mindspore 2.10.0, torch 2.13.0", "13.92M parameters", "its own document alone", "1.00 (0.50-2.00)"):
        assert part in text


def test_columns_are_aligned():
    assert aligned([["", "ms"], ["long name", "1000"]]) == ["             ms", "long name  1000"]
