"""The only place that touches MindSpore's context."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from collections.abc import Iterator

import mindspore as ms
from mindspore import communication, context
from mindspore._c_expression import ms_ctx_param

from pangu_alpha.config_checks import require_choice
from pangu_alpha.config_parallel import ParallelConfig
from pangu_alpha.errors import PanguError
from pangu_alpha.interrupts import held_back
from pangu_alpha.parallel.layout import Layout, require_data_parallel_alone
from pangu_alpha.parallel.ranks import Ranks

BATCH_ARRAYS = 5
"""Arrays [B, S] that a graph is called with: tokens, positions, query positions, segments, labels."""

_TARGETS = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}


def set_single_device_context(device: str = "auto") -> str:
    """Compile whole graphs, for one device; gives back its name.

    Args:
        device: cpu, gpu, ascend, or auto: the best that the installed MindSpore supports on this machine.

    Returns:
        cpu, gpu or ascend.

    Raises:
        UsageError: there is no such device.
        PanguError: MindSpore does not support the device here, or this process already uses another one.
    """
    require_choice("device", device, ("auto", *_TARGETS))
    # MindSpore's own default is Ascend before GPU before CPU, of those whose libraries it could load.
    target = ms.get_context("device_target") if device == "auto" else _TARGETS[device]
    logging.disable(logging.CRITICAL)  # it says the same at length before it raises
    try:
        ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        # Once something was computed the device can't be set any more, not even to what it is.
        if ms.get_context("device_target") != target:
            offered = re.search(r"only supports one of the (\[.*?\])", str(error))
            reason = f"this MindSpore supports {offered[1].lower()}" if offered else str(error).split("\n", 1)[0]
            raise PanguError(f"device {device} cannot be used: {reason}; take one of these, or auto") from None
    finally:
        logging.disable(logging.NOTSET)
    ms.set_context(mode=ms.GRAPH_MODE)
    return target.lower()


def set_run_context(layout: Layout, settings: ParallelConfig, device: str = "auto") -> tuple[str, Ranks]:
    """Compile whole graphs for this process's device, one of those that the run was launched on.

    Args:
        layout: the layout of all ranks.
        settings: section `parallel` of the run.
        device: cpu, gpu, ascend or auto.

    Returns:
        The device, and this process among the others.

    Raises:
        PanguError: MindSpore does not support the device here, or the processes that were launched are not those of the
            layout.
    """
    device = set_single_device_context(device)
    if layout.devices == 1:
        return device, Ranks()
    if not any(name in os.environ for name in ("MS_ROLE", "RANK_TABLE_FILE", "OMPI_COMM_WORLD_RANK")):
        raise PanguError(
            f"the run is laid out on {layout.devices} devices ({layout}), and this process was started alone: "
            "./run_train.sh --config FILE launches all of them"
        )
    communication.init()
    count = communication.get_group_size()
    if count != layout.devices:
        raise PanguError(f"{count} processes were launched, and the run is laid out on {layout.devices} devices")
    if device == "cpu":
        require_data_parallel_alone(layout)
    else:
        _set_parallel_context(layout, settings)
        _set_device_options(settings, device)
        feed_rows(layout)
    return device, Ranks(communication.get_rank(), count)


def set_rehearsal_context(layout: Layout, settings: ParallelConfig, device: str) -> None:
    """Compile whole graphs for one rank of a cluster that is not there; RANK_ID and RANK_SIZE say which.

    Args:
        layout: the layout of all ranks.
        settings: section `parallel` of the run.
        device: gpu or ascend, whose driver stubs this process has loaded.
    """
    # Not set_device, which asks the driver.
    context._context().set_param(ms_ctx_param.device_target, _TARGETS[device])
    ms.set_context(mode=ms.GRAPH_MODE)
    if layout.devices > 1:
        communication.init()
        _set_parallel_context(layout, settings)
    _set_device_options(settings, device)


def _set_parallel_context(layout: Layout, settings: ParallelConfig) -> None:
    """The five dimensions, with the published settings (official `train.py`)."""
    searched = settings.search != "none"
    ms.set_auto_parallel_context(
        parallel_mode="auto_parallel" if searched else "semi_auto_parallel",
        search_mode=settings.search if searched else "sharding_propagation",
        device_num=layout.devices,
        pipeline_stages=layout.pipeline_stages,
        full_batch=True,
        # The loss is a mean over the whole micro batch already, so gradients are summed over the ranks.
        gradients_mean=False,
        loss_repeated_mean=True,
        enable_parallel_optimizer=layout.divides_optimizer,
        # Where the host adds micro batches up, gradients come divided; a pipeline adds whole ones and divides the sum.
        parallel_optimizer_config={
            "parallel_optimizer_threshold": 0,
            "gradient_accumulation_shard": not layout.in_pipeline,
        },
        optimizer_weight_shard_size=layout.optimizer_shards if layout.divides_optimizer else -1,
    )


def feed_rows(layout: Layout) -> None:
    """Graphs compiled from now on are called with a rank's own rows of a batch, where the layout has such.

    A pipeline's first stage takes the tokens and its last one the labels: MindSpore gives whole batches to all of them.
    """
    if layout.row_parts > 1:
        ms.set_auto_parallel_context(dataset_strategy=((layout.row_parts, 1),) * BATCH_ARRAYS)


@contextlib.contextmanager
def plain_graphs() -> Iterator[None]:
    """Graphs compiled inside run on each rank as they are written, on the slices that it holds."""
    kept = {
        name: ms.get_auto_parallel_context(name) for name in ("parallel_mode", "pipeline_stages", "dataset_strategy")
    }
    rows = kept["dataset_strategy"]
    kept["dataset_strategy"] = rows if isinstance(rows, str) else tuple(tuple(row) for row in rows)
    ms.set_auto_parallel_context(parallel_mode="stand_alone", pipeline_stages=1, dataset_strategy="data_parallel")
    try:
        yield
    finally:
        ms.set_auto_parallel_context(**kept)


def _set_device_options(settings: ParallelConfig, device: str) -> None:
    """What a run sets for the compiler and the memory of its devices."""
    if settings.deterministic:
        ms.set_deterministic(True)
    level = settings.jit_level
    if level == "auto" and settings.graph_kernel_fusion:
        level = "O1"  # what fuses operators into generated kernels since MindSpore 2.3
    if level != "auto":
        ms.set_context(jit_config={"jit_level": level})
    if settings.memory_limit_gib:
        ms.set_context(max_device_memory=f"{settings.memory_limit_gib:g}GB")
    if settings.overlap_gradients and device == "ascend":
        # What `grad_computation_allreduce_overlap` of a parallel_speed_up.json sets.
        context._context().set_param(ms_ctx_param.enable_grad_comm_opt, True)


def interruptible() -> contextlib.AbstractContextManager[None]:
    """Let Ctrl-C raise KeyboardInterrupt once the graph that runs inside has ended; a second one raises it at once.

    MindSpore takes SIGINT over whenever a graph runs, never gives it back, and answers it by sending SIGTERM to its own
    process, which ends it (a notebook's kernel, too).  So both signals are only noted inside: an exception raised while
    the compiler calls Python back, or in a finaliser, would be lost.
    """
    return held_back(signal.SIGINT, signal.SIGTERM, second_at_once=True)


def device_name(device: str) -> str:
    """The name that the driver gives an accelerator, such as NVIDIA H100 80GB HBM3; empty for a CPU."""
    return "" if device == "cpu" else str(ms.hal.get_device_name(0))
