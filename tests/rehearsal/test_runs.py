"""Every published run compiles: first, middle and last rank for Ascend, the first also for the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.parallel.layout import layout_of
from pangu_alpha.rehearsal.communication import OTHER
from pangu_alpha.rehearsal.differences import operator_differences
from pangu_alpha.rehearsal.dry_run import choose_ranks, dry_run

CONFIGS = Path(__file__).parent.parent.parent / "configs"
RUNS = sorted((CONFIGS / "runs").glob("*.yaml"))
TWINS = sorted((CONFIGS / "twins").glob("*.yaml"))


def _marks(twin: Path) -> tuple[pytest.MarkDecorator, ...]:
    return () if twin.stem == "2.6b_8" else (pytest.mark.slow,)


def test_there_are_runs():
    assert len(RUNS) >= 9


@pytest.mark.slow
@pytest.mark.parametrize(("target", "ranks"), [("ascend", "first,middle,last"), ("gpu", "first")])
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_published_run_compiles_as_planned(path, target, ranks):
    config = load_config(path).config
    run = dry_run(config, choose_ranks(ranks, layout_of(config)), target)
    for rank in run.ranks:
        assert not rank.unplanned
        assert not rank.without_strategy
        assert OTHER not in {item.purpose for item in rank.communication}
        assert rank.peak_bytes < 4 * 2**30
        # The graph for the other kind of device is compiled, too, but nobody runs it on this cluster.
        if target == ("ascend" if "Ascend" in config.cluster.processor else "gpu"):
            assert rank.memory.fits, f"{rank.memory.total / 2**30:.1f} GiB"


@pytest.mark.parametrize("path", [pytest.param(path, marks=_marks(path)) for path in TWINS], ids=lambda path: path.stem)
def test_a_twin_has_a_strategy_for_every_operator_on_both_kinds_of_devices(path):
    """Twins have what runs lack: dropout by counter, whose operators are cut as well."""
    config = load_config(path).config
    graphs = [dry_run(config, [0], target).ranks[0] for target in ("ascend", "gpu")]
    for rank in graphs:
        assert not rank.unplanned
        assert not rank.without_strategy
    assert not operator_differences(*graphs)
