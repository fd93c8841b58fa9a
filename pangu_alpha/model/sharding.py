"""What the model asks of a layout: it names the role of each operator and knows nothing of clusters."""

from __future__ import annotations

from typing import Any, Protocol


class Sharding(Protocol):
    """How the operators of a model are laid out on devices."""

    @property
    def active(self) -> bool:
        """Whether there is more than one device; then every operator must have a role."""

    @property
    def stages(self) -> int:
        """Pipeline stages; what every layer needs (attention mask, dropout key) is made once in each."""

    @property
    def data_part(self) -> int:
        """Which rows of a whole batch this process is given, where each is given its own: the n-th part."""

    def sum_over_data_parallel(self) -> Any:
        """An operator that sums over the processes which have other rows; None where nobody needs to be asked."""

    def shard(self, operator: Any, role: str) -> Any:
        """`operator`, a primitive, marked with the strategy of its role."""

    def stage_of_layer(self, layer: int) -> int:
        """The pipeline stage in which a layer sits; the query layer is the last one."""

    def dropout_seeds(self, role: str, site: int) -> tuple[int, int]:
        """The two seeds of the framework's Dropout at a place of the model; (0, 0) lets the device choose."""


class Unsharded:
    """One device: no operator has a strategy, all layers are in one stage."""

    active = False
    stages = 1
    data_part = 0

    def sum_over_data_parallel(self) -> Any:
        """None."""
        return None

    def shard(self, operator: Any, role: str) -> Any:  # noqa: ARG002
        """`operator` as it is."""
        return operator

    def stage_of_layer(self, layer: int) -> int:  # noqa: ARG002
        """0."""
        return 0

    def dropout_seeds(self, role: str, site: int) -> tuple[int, int]:  # noqa: ARG002
        """(0, 0)."""
        return 0, 0


UNSHARDED = Unsharded()
