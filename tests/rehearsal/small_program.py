"""Programs small enough to compile in seconds: a network of two matrix products, and ones that fail.

Named to the worker as `small_program:NAME`; tests put this folder into PYTHONPATH.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from pangu_alpha.model.parameter import Unfilled
from pangu_alpha.rehearsal.program import Program

ROWS, WIDTH, INNER = 8, 16, 32


class Network(nn.Cell):
    """mean((gelu(x · into) · back)²); `into` cut by columns, `back` by rows, so that its product is summed over m."""

    def __init__(self, d: int, m: int, activation_strategy) -> None:
        super().__init__()
        self.into = Parameter(initializer(Unfilled(), [WIDTH, INNER], ms.float32), name="into")
        self.back = Parameter(initializer(Unfilled(), [INNER, WIDTH], ms.float32), name="back")
        self.first = ops.MatMul().shard(((d, 1), (1, m)))
        self.second = ops.MatMul().shard(((d, m), (m, 1)))
        self.activation = ops.GeLU()
        if activation_strategy:
            self.activation.shard(activation_strategy)
        self.square = ops.Square().shard(((d, 1),))
        self.mean = ops.ReduceMean().shard(((d, 1),))

    def construct(self, x):
        return self.mean(self.square(self.second(self.activation(self.first(x, self.into)), self.back)))


def _program(config, activation_strategy) -> Program:
    d, m = config.parallel.data_parallel, config.parallel.model_parallel
    network = Network(d, m, activation_strategy)
    step = nn.TrainOneStepCell(network, nn.Adam(network.trainable_params(), 1e-2))
    step.set_train()

    def fill() -> None:
        for number, parameter in enumerate(network.trainable_params()):
            values = np.arange(parameter.size, dtype=np.float32).reshape(parameter.shape) + 1000 * number
            parameter.set_data(Tensor(values))

    return Program(step, (Tensor(shape=(ROWS, WIDTH), dtype=ms.float32, init=Unfilled()),), fill)


def good(config, target, rank) -> Program:
    return _program(config, ((config.parallel.data_parallel, config.parallel.model_parallel),))


def without_strategy(config, target, rank) -> Program:
    return _program(config, None)


def impossible_strategy(config, target, rank) -> Program:
    return _program(config, ((3, 1),))


def too_little_memory(config, target, rank) -> Program:
    limit = 64 * 2**20
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    return Program(None, (np.ones(2**30),))


def killed(config, target, rank) -> Program:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crashing(config, target, rank) -> Program:
    ctypes.string_at(0)
    raise AssertionError


def leaving(config, target, rank) -> Program:
    os._exit(3)


def endless(config, target, rank) -> Program:
    time.sleep(600)
    raise AssertionError
