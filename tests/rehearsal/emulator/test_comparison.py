from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.parallel.layout import Layout
from pangu_alpha.rehearsal.compile import ParameterLayout
from pangu_alpha.rehearsal.emulator.comparison import Tolerance, compare_step, cut, is_idle
from pangu_alpha.rehearsal.emulator.disagreement import disagreements
from pangu_alpha.rehearsal.emulator.reference import StepResult
from tests.rehearsal.emulator.hand_built import all_reduce, cluster, graph, node

WHOLE = np.arange(32, dtype=np.float32).reshape(8, 4)
METRICS = {"loss": 4.0, "gradient_norm": 2.0, "learning_rate": 0.5, "loss_scale": 1.0, "applied": 1.0}


def test_cut_over_model_parallel_ranks_and_optimizer_shards():
    """2 data x 2 model parallel: the columns over the neighbours, what is left over the data-parallel ranks."""
    layout = ParameterLayout((2, 2), (-1, 0), (8, 2), "shards", (8, 4))
    for rank in range(4):
        groups = {"shards": (rank % 2, rank % 2 + 2)}
        rows = slice(0, 4) if rank < 2 else slice(4, 8)
        columns = slice(0, 2) if rank % 2 == 0 else slice(2, 4)
        np.testing.assert_array_equal(cut(WHOLE, layout, rank, groups), WHOLE[rows, columns])
        np.testing.assert_array_equal(cut(WHOLE, layout, rank + 4, {"shards": (rank + 4, 0)})[0], WHOLE[0, columns])


def test_cut_of_what_is_whole():
    layout = ParameterLayout((2, 2), (-1, -1), (8, 4), "", (8, 4))
    np.testing.assert_array_equal(cut(WHOLE, layout, 3, {}), WHOLE)


def _compare(metrics=METRICS, norms=(1.0, 2.0), weight=WHOLE, name="weight", tolerance=None):
    layout = ParameterLayout((2,), (0, -1), (4, 4), "", (8, 4))
    reference = StepResult(METRICS, np.array([1.0, 2.0], np.float32), ("one", "two"), {name: WHOLE})
    return compare_step(
        0,
        reference,
        [(METRICS, reference.norms), (metrics, np.array(norms, np.float32))],
        [{name: WHOLE[:4]}, {name: weight[4:]}],
        [{name: layout}] * 2,
        [{}, {}],
        Layout(data_parallel=1, model_parallel=2),
        tolerance or Tolerance(1e-5, 1e-5),
    )


def test_equal():
    comparison = _compare()
    assert comparison.too_large == []
    assert comparison.largest("loss") == comparison.largest_of_parameters.size == 0.0
    assert len(comparison.parameters) == 2


@pytest.mark.parametrize(
    ("change", "name", "size"),
    [
        ({"metrics": METRICS | {"loss": 4.4}}, "loss", 0.1),
        ({"metrics": METRICS | {"applied": 0.0}}, "applied", 1.0),
        ({"metrics": METRICS | {"gradient_norm": float("nan")}}, "gradient_norm", float("inf")),
        ({"norms": (1.0, 2.5)}, "norm of gradient of two", 0.25),
        ({"weight": WHOLE + (np.arange(8)[:, None] == 6)}, "weight", 1.0),
        ({"weight": WHOLE[:, :2]}, "weight", float("inf")),
        ({"weight": np.where(WHOLE == 20, np.nan, WHOLE)}, "weight", float("inf")),
    ],
)
def test_one_number_of_one_rank_that_differs(change, name, size):
    (difference,) = _compare(**change).too_large
    assert (difference.name, difference.rank) == (name, 1)
    assert difference.size == pytest.approx(size)


def test_a_weight_that_is_only_pushed_by_rounding():
    noisy = {"weight": WHOLE + np.float32(1e-3), "tolerance": Tolerance(1e-5, 1e-5, noise=2e-3)}
    assert _compare(name="blocks.0.attention.key.bias", **noisy).too_large == []
    for name in ("blocks.0.attention.query.bias", "adam_m.blocks.0.attention.key.bias"):
        assert len(_compare(name=name, **noisy).too_large) == 1


def test_the_word_table_of_later_stages_is_idle():
    pipeline, plain = Layout(pipeline_stages=2, micro_batches=2), Layout(data_parallel=2)
    assert is_idle("adam_m.word_table", pipeline, 1)
    assert not is_idle("word_table", pipeline, 0)
    assert not is_idle("word_table", plain, 1)
    assert not is_idle("query_layer.query_table", pipeline, 1)


def test_ranks_that_disagree_with_each_other():
    add = [all_reduce("x", "sum"), node("Add", ["sum", "x"], "end")]
    both = cluster([graph(add, "end")] * 2)
    both.run("step", [np.ones(2, np.float32)])
    (line,) = disagreements(_compare(metrics=METRICS | {"loss": 4.4}), both.ranks)
    assert line == (
        "ranks 0 and 1 disagree on loss (4, 4.4); the last collective that they both took part in: rank 0 at AllReduce "
        "sum float32[2] (Default/sum)"
    )
    for rank in both.ranks:
        rank.calls.clear()
    (line,) = disagreements(_compare(metrics=METRICS | {"loss": float("nan")}), both.ranks)
    assert line.endswith("(4, nan); no collective joins them")
    assert disagreements(_compare(), both.ranks) == []
