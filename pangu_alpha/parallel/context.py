"""The only place that touches MindSpore's context."""

from __future__ import annotations

import logging
import re

import mindspore as ms

from pangu_alpha.errors import PanguError

_TARGETS = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}


def set_single_device_context(device: str = "auto") -> str:
    """Compile whole graphs, for one device; gives back its name.

    Args:
        device: cpu, gpu, ascend, or auto: the best that the installed MindSpore supports on this machine.

    Returns:
        cpu, gpu or ascend.

    Raises:
        PanguError: MindSpore does not support the device here, or this process already uses another one.
    """
    # MindSpore's own default is Ascend before GPU before CPU, of those whose libraries it could load.
    target = ms.get_context("device_target") if device == "auto" else _TARGETS[device]
    logging.disable(logging.CRITICAL)  # it says the same at length before it raises
    try:
        ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        offered = re.search(r"only supports one of the (\[.*?\])", str(error))
        reason = f"this MindSpore supports {offered[1].lower()}" if offered else str(error).split("\n", 1)[0]
        raise PanguError(f"device {device} cannot be used: {reason}; take one of these, or auto") from None
    finally:
        logging.disable(logging.NOTSET)
    ms.set_context(mode=ms.GRAPH_MODE)
    return target.lower()
