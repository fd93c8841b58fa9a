"""From a checkpoint into a model or a training run: the one module here that touches MindSpore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor

from pangu_alpha.checkpoint.load import Checkpoint
from pangu_alpha.config import Config


def fill_parameters(
    parameters: Sequence[Parameter], checkpoint: Checkpoint, config: Config, exact: bool = True
) -> None:
    """Give every parameter the value of the tensor of its name, one tensor in memory at a time.

    Call it before the first training step of a process: once the compiled step has run, MindSpore no longer takes new
    values of the moments from the host.  Nothing is changed unless all names and shapes fit.  float16 and float32 are
    converted into each other where the parameter's type differs from the stored one.

    Args:
        parameters: of the model, or of the whole training run.
        checkpoint: from `find_checkpoint` or `newest_good_checkpoint`.
        config: the configuration that the parameters were built from.
        exact: whether the checkpoint may hold nothing else; False for inference, which leaves the moments out.

    Raises:
        PanguError: a missing, extra or differently shaped tensor: one line with the configuration's key that differs.
        DamagedCheckpointError: a tensor that was not yet verified differs from its checksum.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    checkpoint.check_shapes({name: tuple(item.shape) for name, item in by_name.items()}, config, exact)
    for name, array in checkpoint.tensors(list(by_name)):
        parameter = by_name[name]
        parameter.set_data(Tensor(np.asarray(array).reshape(parameter.shape), parameter.dtype))


def parameter_arrays(parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
    """The values of the parameters by name, for `save_checkpoint`; copies, so that a later step does not reach them."""
    return {parameter.name: np.array(parameter.asnumpy()) for parameter in parameters}
