"""From log-probabilities to the next token: pure functions of the distribution and one uniform number.

The released code takes natural logarithms to the power of ten and keeps `sum(cumsum > top_p)` tokens, which is wrong
twice.  Here: probabilities are exp(log p), and top-p keeps the fewest most probable tokens whose
probabilities sum to at least top_p.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pangu_alpha.config_checks import is_number, require, require_integer

_FIRST_LOOK = 1024
"""Most probable tokens that top-p sorts first; the whole vocabulary is sorted only if they are not enough."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.8
    """Log-probabilities are divided by it; 0 always takes the most probable token."""
    top_k: int = 0
    """Only the k most probable tokens; 0 takes all."""
    top_p: float = 0.9
    """Of those, the fewest whose probabilities sum to at least this; 1 takes all."""

    def __post_init__(self) -> None:
        temperature, top_p = self.temperature, self.top_p
        positive = is_number(temperature) and 0.0 <= temperature < float("inf")
        require(positive, "temperature", temperature, "it must be 0 (greedy) or a positive number")
        require_integer("top_k", self.top_k, 0)
        require(is_number(top_p) and 0.0 < top_p <= 1.0, "top_p", top_p, "it must lie in (0, 1], 1 takes all tokens")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits [..., V] -> log-probabilities float64 [..., V]; -inf stays -inf."""
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def uniform(seed: int, index: int) -> float:
    """The random number in [0, 1) of the token `index` of a text: a function of its arguments, not of a stream."""
    return float(np.random.Generator(np.random.Philox(key=int(seed) % 2**64, counter=index)).random())


def candidates(log_probabilities: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be chosen and their probabilities.

    Temperature acts first, then top-k, then top-p on what top-k left, renormalised.  Of equally probable tokens the
    one with the smaller id stands first.

    Args:
        log_probabilities: [V]; -inf where a token is ruled out.

    Returns:
        Token ids int64 [n], the most probable first, and their probabilities float64 [n], which sum to 1.
    """
    if sampling.temperature == 0.0:
        return np.array([np.argmax(log_probabilities)]), np.array([1.0])
    # The greatest becomes 0 before the division, so that the smallest temperature leaves it finite.
    with np.errstate(over="ignore"):
        scaled = log_softmax((log_probabilities - log_probabilities.max()) / sampling.temperature)
    size = len(scaled)
    if sampling.top_k:
        order = _most_probable(scaled, min(sampling.top_k, size))
        probabilities = _normalised(np.exp(scaled[order]))
    else:
        order = _most_probable(scaled, min(_FIRST_LOOK, size) if sampling.top_p < 1.0 else size)
        probabilities = np.exp(scaled[order])
        if sampling.top_p < 1.0 and probabilities.sum() < sampling.top_p:
            order = _most_probable(scaled, size)
            probabilities = np.exp(scaled[order])
    if sampling.top_p < 1.0:
        kept = min(int((np.cumsum(probabilities) < sampling.top_p).sum()) + 1, len(order))
        order, probabilities = order[:kept], probabilities[:kept]
    possible = probabilities > 0.0
    return order[possible], _normalised(probabilities[possible])


def choose(log_probabilities: np.ndarray, sampling: Sampling, random: float) -> int:
    """The next token: the one in whose share of [0, 1) the number `random` falls, the most probable first."""
    order, probabilities = candidates(log_probabilities, sampling)
    index = int(np.searchsorted(np.cumsum(probabilities), random, side="right"))
    return int(order[min(index, len(order) - 1)])  # the sum may stay a rounding error below 1


def _most_probable(values: np.ndarray, count: int) -> np.ndarray:
    """Ids of the `count` largest values, the largest first, equal ones by id."""
    if count < len(values):
        smallest = np.partition(values, len(values) - count)[len(values) - count]
        ids = np.flatnonzero(values >= smallest)
        return ids[np.argsort(-values[ids], kind="stable")][:count]
    return np.argsort(-values, kind="stable")


def _normalised(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum()
