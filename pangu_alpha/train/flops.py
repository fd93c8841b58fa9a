"""How much arithmetic one token takes, and how much a machine can do: model-FLOPs utilisation.

Model FLOPs are those the mathematics of the model asks for, forward and backward; a multiplication with its addition
counts two.  Recomputed activations, dropout, norms, softmax and the optimizer do not count, so that a faster way to the
same result always shows as a higher number.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pangu_alpha.config import ModelConfig

MATRIX_SIDE = 1024
"""Side of the square matrices of the measurement: three of them fit in a server's cache, as those of a layer do."""


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied with.

    Per layer, the query layer included: query, key, value and output (4 H^2) and the two feed-forward matrices
    (2 H F, F the inner width); once: the word table, as the tied head (V H).  Tables that are only looked up, biases
    and norms are not products.
    """
    hidden = config.hidden_size
    layer = (4 * hidden + 2 * config.feed_forward_size) * hidden
    return config.num_layers * layer + config.vocab_size * hidden


def model_flops_per_token(config: ModelConfig, *, causal: bool = True, training: bool = True) -> float:
    """FLOPs of one token: `2 * matmul parameters + 4 * layers * S * H`, times three with the backward pass.

    The second term is attention: scores and weighted sum are 2 S H each for a token that sees S others.  `causal`
    halves it, as a token sees S/2 others on average (the convention of this project; Megatron's and MindFormers'
    formulas count the full square).  Documents of a sample that do not see each other would lower it further; that is
    not subtracted.  `training` counts the backward pass as twice the forward.

    Example: V 8000, H 384, 6 layers, S 256 gives 85.7 MFLOP.
    """
    attention = 4.0 * config.num_layers * config.seq_length * config.hidden_size
    forward = 2.0 * matmul_parameters(config) + (attention / 2 if causal else attention)
    return forward * (3 if training else 1)


@dataclass(frozen=True)
class PeakSpeed:
    """What one device could do at most."""

    flops: float
    """FLOP/s of matrix products."""
    source: str
    """Where the number is from, for the log: measured here, published by the maker, or given in the configuration."""


# FLOP/s of dense float16 matrix products, as the makers publish them.  The expressions match the whole device name:
# "Ascend910B3" is another chip than "Ascend910".  Missing on purpose: chips whose makers publish no such number.
_PUBLISHED_PEAKS: tuple[tuple[str, float, str], ...] = (
    (r"Ascend ?910A?", 256e12, "Huawei, announcement of the Ascend 910 of August 2019"),
    (r"(NVIDIA |Tesla )*V100.*", 125e12, "NVIDIA V100 datasheet"),
    (r"(NVIDIA )?A[18]00.*", 312e12, "NVIDIA A100 datasheet, without sparsity"),
    (r"(NVIDIA )?H100 PCIe.*", 756e12, "NVIDIA H100 datasheet, half of the figure with sparsity"),
    (r"(NVIDIA )?H[128]00.*", 989.4e12, "NVIDIA H100 and H200 datasheets, half of the figure with sparsity"),
)


def published_peak(device_name: str) -> PeakSpeed | None:
    """The published float16 peak of a device by the name that its driver reports; None where none is known."""
    for pattern, flops, source in _PUBLISHED_PEAKS:
        if re.fullmatch(pattern, device_name.strip(), flags=re.IGNORECASE):
            return PeakSpeed(flops, f"published: {source}")
    return None


def peak_speed(device: str, device_name: str = "", given_tflops: float = 0.0) -> PeakSpeed | None:
    """The speed that utilisation is measured against.

    `given_tflops` (10^12 FLOP/s) wins when positive.  A CPU is measured (about a second).  An accelerator is looked up
    by `device_name`; None for one that is not in the table, and utilisation is then not shown.
    """
    if given_tflops > 0:
        return PeakSpeed(given_tflops * 1e12, "given in the configuration")
    if device == "cpu":
        return PeakSpeed(measure_matrix_peak(), f"measured: float32 product of {MATRIX_SIDE} x {MATRIX_SIDE} matrices")
    return published_peak(device_name)


def measure_matrix_peak(seconds: float = 0.7) -> float:
    """FLOP/s of this machine's float32 matrix products, all cores: the best of repeated products.

    Both libraries at hand are tried, as either may be the faster on a processor: NumPy's and MindSpore's (chains of
    four products, so that the last one's copy to the host weighs little).  The best single try counts: other work on
    the machine only ever slows a product down, and a peak measured too low would flatter the utilisation.
    """
    return max(_numpy_peak(seconds * 0.25), _mindspore_peak(seconds * 0.75))


def _operands() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two random square matrices, scaled so that chained products stay of order one."""
    random = np.random.default_rng(1)
    scale = MATRIX_SIDE**-0.5
    left, right = random.standard_normal((2, MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32) * np.float32(scale)
    return left, right


def _numpy_peak(seconds: float) -> float:
    left, right = _operands()
    product = np.matmul(left, right)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(left, right, out=product)
        best = min(best, time.perf_counter() - start)
    return 2.0 * MATRIX_SIDE**3 / best


def _mindspore_peak(seconds: float, chain: int = 4) -> float:
    from mindspore import Tensor, ops

    left, right = (Tensor(operand) for operand in _operands())
    ops.matmul(left, right).asnumpy()  # the first call builds the kernel
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product = left
        for _ in range(chain):
            product = ops.matmul(product, right)
        product.asnumpy()  # waits: operators run behind the caller's back
        best = min(best, time.perf_counter() - start)
    return 2.0 * MATRIX_SIDE**3 * chain / best


def utilisation(flops_per_token: float, tokens_per_second: float, peak: float) -> float:
    """Model-FLOPs utilisation: share of `peak` FLOP/s (over all devices) that went into the model's mathematics."""
    return flops_per_token * tokens_per_second / peak
