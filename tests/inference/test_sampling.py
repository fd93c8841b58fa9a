"""Which tokens may be chosen, and how often, against computations written another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from pangu_alpha.errors import UsageError
from pangu_alpha.inference.sampling import Sampling, candidates, choose, log_softmax, uniform


def slow_candidates(probabilities: list[float], temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The definition, in plain Python: sort, cut at k, add up to p, normalise."""
    powered = [p ** (1.0 / temperature) for p in probabilities]
    order = sorted(range(len(powered)), key=lambda token: (-powered[token], token))
    if top_k:
        order = order[:top_k]
    total = math.fsum(powered[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if top_p < 1.0 and reached >= top_p:
            break
        kept.append(token)
        reached += powered[token] / total
    share = math.fsum(powered[token] for token in kept)
    return {token: powered[token] / share for token in kept if powered[token] > 0}


logits = st_numpy.arrays(np.float64, st.integers(1, 40), elements=st.floats(-8, 8).map(lambda x: round(x, 3)))


@given(logits, st.floats(0.2, 3.0), st.integers(0, 45), st.sampled_from([0.07, 0.33, 0.5, 0.91, 0.999, 1.0]))
def test_candidates_are_those_of_the_definition(values, temperature, top_k, top_p) -> None:
    log_probabilities = log_softmax(values)
    order, found = candidates(log_probabilities, Sampling(temperature, top_k, top_p))
    expected = slow_candidates(np.exp(log_probabilities).tolist(), temperature, top_k, top_p)
    if set(order.tolist()) != set(expected):  # a sum within rounding of top_p may fall on either side
        assert abs(len(order) - len(expected)) == 1
        return
    np.testing.assert_allclose(found, [expected[token] for token in order.tolist()], rtol=1e-9)
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.49, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (0.875, 3), (0.9, 4), (1.0, 4), (1e-9, 1)],
)
def test_top_p_at_its_borders(top_p: float, kept: int) -> None:
    # Powers of two are exact, so that a sum can equal top_p.
    log_probabilities = np.log([0.125, 0.5, 0.25, 0.125])
    order, probabilities = candidates(log_probabilities, Sampling(1.0, 0, top_p))
    assert order.tolist() == [1, 2, 0, 3][:kept]
    assert probabilities.sum() == pytest.approx(1.0)


def test_the_published_mistakes_would_be_seen() -> None:
    log_probabilities = np.log([0.6, 0.3, 0.1])
    order, _ = candidates(log_probabilities, Sampling(1.0, 0, 0.7))
    assert order.tolist() == [0, 1]
    powers_of_ten = np.cumsum(10**log_probabilities)
    assert (powers_of_ten > 0.7).sum() != 2  # what the released serving code keeps


def test_top_p_looks_beyond_the_first_tokens_where_it_must() -> None:
    flat = np.full(5000, -math.log(5000.0))
    order, _ = candidates(flat, Sampling(1.0, 0, 0.4999))
    assert order.tolist() == list(range(2500))  # of equal tokens the smaller ids


def test_top_k_takes_smaller_ids_of_equal_tokens() -> None:
    order, _ = candidates(np.log([0.1, 0.3, 0.3, 0.3]), Sampling(1.0, 2, 1.0))
    assert order.tolist() == [1, 2]


def test_ruled_out_tokens_are_never_candidates() -> None:
    values = np.array([1.0, -np.inf, 0.5, -np.inf])
    for sampling in (Sampling(1.0, 0, 1.0), Sampling(1.0, 4, 1.0), Sampling(5.0, 0, 0.99), Sampling(0.0)):
        order, _ = candidates(log_softmax(values), sampling)
        assert set(order.tolist()) <= {0, 2}


@pytest.mark.parametrize("temperature", [1e-320, 5e-324, 1e-308, np.float32(1e-40)])
@pytest.mark.parametrize("more", [{"top_k": 0, "top_p": 1.0}, {"top_k": 3, "top_p": 0.9}])
def test_the_smallest_temperature_is_nearly_greedy(temperature, more) -> None:
    log_probabilities = log_softmax(np.array([1.0, 3.0, -np.inf, 3.0, 2.999]))
    order, probabilities = candidates(log_probabilities, Sampling(temperature, **more))
    assert order.tolist() == [1, 3]
    assert probabilities.tolist() == [0.5, 0.5]


def test_greedy_takes_the_first_of_the_most_probable() -> None:
    assert choose(np.log([0.2, 0.4, 0.4]), Sampling(0.0, 3, 0.1), 0.999) == 1


def test_chosen_tokens_have_the_right_frequencies() -> None:
    probabilities = np.array([0.05, 0.4, 0.15, 0.3, 0.1])
    sampling = Sampling(0.7, 4, 0.95)
    expected = slow_candidates(probabilities.tolist(), 0.7, 4, 0.95)
    count = 20000
    drawn = np.bincount(
        [choose(np.log(probabilities), sampling, uniform(7, index)) for index in range(count)], minlength=5
    )
    for token in range(5):
        share = expected.get(token, 0.0)
        deviation = math.sqrt(share * (1 - share) / count)
        assert abs(drawn[token] / count - share) <= 4 * deviation


def test_uniform_is_a_function_of_seed_and_index() -> None:
    numbers = [[uniform(seed, index) for index in range(50)] for seed in (0, 1, 2**40)]
    assert numbers[0] == [uniform(0, index) for index in range(50)]
    assert len({number for row in numbers for number in row}) == 150
    assert all(0.0 <= number < 1.0 for row in numbers for number in row)


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"temperature": "0.8"},
        {"temperature": True},
        {"temperature": None},
        {"top_k": 2.5},
        {"top_k": True},
        {"top_k": "5"},
        {"top_p": "0.9"},
        {"top_p": True},
    ],
)
def test_impossible_settings_are_refused(arguments) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments))):
        Sampling(**arguments)


def test_numbers_of_numpy_are_numbers() -> None:
    sampling = Sampling(np.float32(0.5), np.int64(2), np.float64(1.0))
    log_probabilities = np.log([0.1, 0.3, 0.4, 0.2])
    assert candidates(log_probabilities, sampling)[0].tolist() == [2, 1]
    assert uniform(np.int64(7), 3) == uniform(7, 3) != uniform(np.uint8(8), 3)
