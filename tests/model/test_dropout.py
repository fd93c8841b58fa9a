"""Counter-based dropout: the same bits as an independent implementation, and masks that look random in every way
that a model could notice.
"""

from __future__ import annotations

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from pangu_alpha.model.dropout import Dropout, DropoutKey
from pangu_alpha.model.numerics import Numerics
from pangu_alpha.parallel.context import set_single_device_context
from tests.reference.numpy_dropout import kept, key_of

ROWS = COLUMNS = 1 << 10


class Masks(nn.Cell):
    """The masks of one micro step at several sites, as one graph."""

    def __init__(self, shape: tuple[int, ...], rate: float, sites: tuple[int, ...], seed: int) -> None:
        super().__init__()
        self.shape, self.key = shape, DropoutKey(seed)
        self.dropouts = nn.CellList([Dropout(rate, site, Numerics(), "hidden_dropout") for site in sites])

    def construct(self, micro_step):
        key = self.key(micro_step)
        masks = ()
        for dropout in self.dropouts:
            masks = masks + (dropout.mask(self.shape, key),)
        return masks


def masks(shape, rate, sites=(0,), seed=1, micro_step=0) -> list[np.ndarray]:
    set_single_device_context("cpu")
    return [mask.asnumpy() for mask in Masks(shape, rate, tuple(sites), seed)(Tensor([micro_step], ms.int32))]


@pytest.fixture(scope="module")
def large() -> dict[tuple[int, int, int], np.ndarray]:
    """(seed, micro step, site) -> a mask of 2^20 elements with a rate of 0.3, as float64 of mean 0 and variance 1."""
    set_single_device_context("cpu")
    result = {}
    for seed in (1, 2):
        cell = Masks((ROWS, COLUMNS), 0.3, (0, 1, 7), seed)
        for micro_step in (0, 1, 1000):
            for site, mask in zip((0, 1, 7), cell(Tensor([micro_step], ms.int32)), strict=True):
                result[seed, micro_step, site] = (mask.asnumpy() - 0.7) / np.sqrt(0.7 * 0.3)
    return result


@pytest.mark.parametrize(
    ("shape", "rate", "sites", "seed", "micro_step"),
    [
        ((24, 16), 0.1, (0, 1, 2), 1, 0),
        ((2, 3, 5, 7), 0.5, (4,), 0, 12345),
        ((3, 40), 0.9, (191,), 2**31 + 7, 2**31 - 1),
    ],
)
def test_the_bits_are_those_of_the_description(shape, rate, sites, seed, micro_step):
    for site, mask in zip(sites, masks(shape, rate, sites, seed, micro_step), strict=True):
        assert np.array_equal(mask, kept(shape, key_of(seed, micro_step), site, rate))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_share_kept_is_right(rate):
    (mask,) = masks((ROWS, COLUMNS), rate)
    assert abs(mask.mean() - (1.0 - rate)) < 5.0 * np.sqrt(rate * (1.0 - rate) / mask.size)


def test_the_share_is_right_in_every_row_and_every_column(large):
    for values in large.values():
        for axis in (0, 1):
            squares = values.sum(axis) ** 2 / values.shape[axis]
            # The sum of 1024 squares of nearly normal variables: mean 1024, variance 2 * 1024.
            assert abs(squares.sum() - 1024.0) < 5.0 * np.sqrt(2.0 * 1024.0)
            assert squares.max() < 6.0**2


def test_no_two_rows_and_no_two_columns_are_alike(large):
    for values in itertools.islice(large.values(), 6):
        for rows in (values, values.T):
            correlations = rows @ rows.T / np.sqrt(rows.shape[1])  # each nearly normal; 524,000 pairs
            np.fill_diagonal(correlations, 0.0)
            assert np.abs(correlations).max() < 7.0
            assert abs(np.triu(correlations, 1).std() * np.sqrt(2.0) - 1.0) < 0.01


@pytest.mark.parametrize("lag", [1, 2, 16, 64, 512])
def test_neighbours_do_not_know_of_each_other(large, lag):
    for values in large.values():
        for one, other in (
            (values[lag:], values[:-lag]),
            (values[:, lag:], values[:, :-lag]),
            (values[lag:, lag:], values[:-lag, :-lag]),
        ):
            assert abs((one * other).mean()) < 5.0 / np.sqrt(one.size)
        # The mask is made of a word for the row and one for the column: four corners must not give each other away.
        corners = values[lag:, lag:] * values[:-lag, :-lag] * values[lag:, :-lag] * values[:-lag, lag:]
        assert abs(corners.mean()) < 5.0 / np.sqrt(corners.size)


def test_sites_steps_and_seeds_have_masks_of_their_own(large):
    for one, other in itertools.combinations(large.values(), 2):
        assert abs((one * other).mean()) < 5.0 / 1024.0
        # Nor may one mask be another one moved by a row or a column.
        assert abs((one[1:] * other[:-1]).mean()) < 5.0 / 1024.0
        assert abs((one[:, 1:] * other[:, :-1]).mean()) < 5.0 / 1024.0


def test_runs_of_kept_elements_are_as_long_as_chance_makes_them(large):
    # Of coins that fall 7 to 3, a run of zeros and ones is followed by the other side with known probability.
    row_major = (large[1, 0, 0] > 0).reshape(-1)
    for pattern in itertools.product((False, True), repeat=3):
        places = np.ones(row_major.size - 3, bool)
        for offset, wanted in enumerate(pattern):
            places &= row_major[offset : offset - 3] == wanted
        after = row_major[3:][places]
        assert abs(after.mean() - 0.7) < 5.0 * np.sqrt(0.21 / after.size)


def test_no_two_micro_steps_share_a_key():
    set_single_device_context("cpu")
    steps = Tensor(np.arange(1 << 16, dtype=np.int32))
    keys = DropoutKey(1)(steps).asnumpy()
    assert len(np.unique(keys)) == len(keys)
    assert keys[:100].tolist() == [key_of(1, step) for step in range(100)]
    assert not set(keys[:1000].tolist()) & set(DropoutKey(2)(steps).asnumpy()[:1000].tolist())


def test_a_part_of_a_tensor_has_a_part_of_its_mask():
    # What holds and what does not: the first rows (samples, or steps of [B*S, H]) and the first columns of a larger
    # tensor have the mask of a smaller one, and only the last axis counts as columns.  A batch that is cut into micro
    # batches has other masks than the whole one, as each micro batch has a key of its own.
    (whole,) = masks((8, 4, 32), 0.5)
    assert np.array_equal(masks((3, 4, 32), 0.5)[0], whole[:3])
    assert np.array_equal(masks((8, 4, 20), 0.5)[0], whole[..., :20])
    assert np.array_equal(masks((32, 32), 0.5)[0], whole.reshape(32, 32))
    assert not np.array_equal(masks((4, 4, 32), 0.5, micro_step=1)[0], whole[4:])


class Applied(nn.Cell):
    """Dropout of a value, with the key of a micro step."""

    def __init__(self, dropout: Dropout) -> None:
        super().__init__()
        self.dropout, self.key = dropout, DropoutKey(1)

    def construct(self, value, micro_step):
        return self.dropout(value, self.key(micro_step))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(dtype):
    set_single_device_context("cpu")
    value = np.ones((ROWS, COLUMNS), dtype)
    dropped = Applied(Dropout(0.1, 3, Numerics(), "hidden_dropout"))(Tensor(value), Tensor([5], ms.int32)).asnumpy()
    assert dropped.dtype == dtype
    assert set(np.unique(dropped)) == {dtype(0), dtype(1 / 0.9)}
    assert abs(dropped.astype(np.float64).mean() - 1.0) < 5.0 * np.sqrt(0.1 / 0.9 / value.size) + np.finfo(dtype).eps


def test_the_gradient_passes_the_same_mask():
    set_single_device_context("cpu")
    cell = Applied(Dropout(0.4, 3, Numerics(), "hidden_dropout"))
    value, weight = np.random.default_rng(1).standard_normal((2, 12, 10)).astype(np.float32)

    def weighted(tensor):
        return (cell(tensor, Tensor([9], ms.int32)) * Tensor(weight)).sum()

    _, gradient = ops.value_and_grad(weighted)(Tensor(value))
    expected = weight * kept(value.shape, key_of(1, 9), 3, 0.4) / np.float32(0.6)
    assert gradient.asnumpy() == pytest.approx(expected, rel=1e-6)


def test_without_a_key_and_with_rate_zero_nothing_is_dropped():
    set_single_device_context("cpu")
    value = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    assert np.array_equal(Dropout(0.9, 0, Numerics(), "hidden_dropout")(value).asnumpy(), value.asnumpy())
    assert np.array_equal(
        Applied(Dropout(0.0, 0, Numerics(), "hidden_dropout"))(value, Tensor([0], ms.int32)).asnumpy(), value.asnumpy()
    )


def test_the_device_s_own_dropout_is_there_by_option():
    set_single_device_context("cpu")
    value = Tensor(np.ones((ROWS, 64), np.float32))
    dropped = Applied(Dropout(0.25, 0, Numerics(counter_dropout=False), "hidden_dropout"))(
        value, Tensor([0], ms.int32)
    ).asnumpy()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(dropped.mean() - 1.0) < 5.0 * np.sqrt(0.25 / 0.75 / dropped.size)
    assert not np.array_equal(dropped != 0, kept(dropped.shape, key_of(1, 0), 0, 0.25))


class FrameworkDropouts(nn.Cell):
    """MindSpore's Dropout at two sites, added up."""

    def __init__(self) -> None:
        super().__init__()
        numerics = Numerics(counter_dropout=False)
        self.first, self.second = (Dropout(0.3, site, numerics, "hidden_dropout") for site in (1, 2))

    def construct(self, value, micro_step):
        first = self.first(value, micro_step)
        return first.sum() + 1000.0 * self.second(value, micro_step).sum(), first


def test_dropout_of_the_framework_drops_scales_and_differs_by_site_and_call():
    set_single_device_context("cpu")
    value, micro_step = Tensor(np.ones((ROWS, 100), np.float32)), Tensor([0], ms.int32)
    run = ops.value_and_grad(FrameworkDropouts(), 0, has_aux=True)
    kept_values = []
    for _ in range(2):
        (_, first), gradient = run(value, micro_step)
        first, second = first.asnumpy(), (gradient.asnumpy() - first.asnumpy()) / 1000.0
        for found in first, second:  # the gradient has the masks of the forward pass
            assert np.unique(np.round(found.astype(np.float64), 3)).tolist() == [0.0, 1.429]
            assert (found == 0.0).mean() == pytest.approx(0.3, abs=0.01)
            kept_values.append(found > 0.0)
    for left, right in itertools.combinations(kept_values, 2):
        assert (left == right).mean() == pytest.approx(0.7**2 + 0.3**2, abs=0.01)
