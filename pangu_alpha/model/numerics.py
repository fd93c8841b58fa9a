"""In which types, with which operators and with which generator of dropout masks a model computes on a device."""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms

from pangu_alpha.config import ModelConfig


@dataclass(frozen=True)
class Numerics:
    """What the configuration leaves to the device (`auto`), decided."""

    compute_dtype: ms.Type = ms.float32
    """Type of matrix products and of the residual stream; LayerNorm, softmax and loss are float32 always."""
    counter_dropout: bool = True
    """True: dropout masks are computed in the graph by counter; False: by the framework's Dropout."""
    fused_operators: bool = False
    """True: MindSpore's own LayerNorm, softmax and bias, which accelerators have in one piece; False: `operators`."""

    @property
    def joined_cells(self) -> bool:
        """Whether softmax with values, and head with loss, are one cell each, which know float32 alone."""
        return not self.fused_operators and self.compute_dtype == ms.float32


def resolve_numerics(config: ModelConfig, device: str) -> Numerics:
    """The numerics of `config` on a `device` (cpu, gpu or ascend); `auto` means float32 and counter on the CPU."""
    on_cpu = device == "cpu"
    dtype = {"auto": ms.float32 if on_cpu else ms.float16, "float32": ms.float32, "float16": ms.float16}
    counter = {"auto": on_cpu, "counter": True, "framework": False}
    return Numerics(dtype[config.compute_dtype], counter[config.dropout_generator], fused_operators=not on_cpu)
