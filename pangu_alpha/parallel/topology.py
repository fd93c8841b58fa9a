"""Where each rank sits: layouts mapped to racks and servers (paper figure 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.config_cluster import ClusterConfig
from pangu_alpha.parallel.layout import Layout

LINKS = ("server", "rack", "spine")
"""What joins two devices: of one server, of two servers in a rack, of two racks."""


@dataclass(frozen=True)
class Place:
    """One device of the cluster."""

    rack: int
    """Its rack."""
    server: int
    """Its server, counted through all racks."""
    device: int
    """Its number in the server."""


@dataclass(frozen=True)
class Group:
    """Ranks that talk to each other, and the slowest link between them."""

    kind: str
    """model, pipeline, data or optimizer."""
    ranks: tuple[int, ...]
    """In the order of the group."""
    link: str
    """One of LINKS."""


class Topology:
    """Who sits where.

    Devices are filled server by server with the model-parallel ranks of one stage, then with the stages of one replica,
    then with the next replica: so matrix products are shared inside a server, a pipeline stays inside a rack, and
    only data parallelism goes across racks, as far as the sizes allow.
    """

    def __init__(self, layout: Layout, cluster: ClusterConfig) -> None:
        """Map `layout` to `cluster`.

        Raises:
            InvalidValue: the cluster has fewer devices than the layout has ranks.
        """
        if layout.devices > cluster.devices:
            raise InvalidValue(
                "cluster.racks",
                cluster.racks,
                f"{cluster.racks} racks of {cluster.servers_per_rack} servers of {cluster.devices_per_server} devices "
                f"are {cluster.devices}, and the layout has {layout.devices} ranks",
            )
        self.layout, self.cluster = layout, cluster
        self.ranks = tuple(self._ranks())
        """Rank of each device that is used, in the order of servers and devices."""
        self._position = {rank: position for position, rank in enumerate(self.ranks)}

    def _ranks(self) -> Iterator[int]:
        layout = self.layout
        for data in range(layout.data_parallel):
            for stage in range(layout.pipeline_stages):
                for model in range(layout.model_parallel):
                    yield stage * layout.devices_per_stage + data * layout.model_parallel + model

    def place(self, rank: int) -> Place:
        """Where a rank sits."""
        server, device = divmod(self._position[rank], self.cluster.devices_per_server)
        return Place(server // self.cluster.servers_per_rack, server, device)

    def link(self, first: int, second: int) -> str:
        """What joins two ranks: one of LINKS."""
        one, other = self.place(first), self.place(second)
        if one.server == other.server:
            return "server"
        return "rack" if one.rack == other.rack else "spine"

    def groups(self) -> list[Group]:
        """All groups that communicate, of one rank alone left out.

        A pipeline group is two neighbouring stages; an optimizer group divides what its data group would share.
        """
        layout, found = self.layout, []
        stage_size, model = layout.devices_per_stage, layout.model_parallel
        for first in range(0, layout.devices, model):
            found.append(self._group("model", range(first, first + model)))
        for stage in range(layout.pipeline_stages):
            for index in range(model):
                ranks = range(stage * stage_size + index, (stage + 1) * stage_size, model)
                found.append(self._group("data", ranks))
                if layout.divides_optimizer:
                    shards = layout.optimizer_shards
                    for begin in range(0, len(ranks), shards):
                        found.append(self._group("optimizer", ranks[begin : begin + shards]))
        for rank in range(layout.devices - stage_size):
            found.append(self._group("pipeline", range(rank, rank + 2 * stage_size, stage_size)))
        return [group for group in found if len(group.ranks) > 1]

    def _group(self, kind: str, ranks: range) -> Group:
        places = [self.place(rank) for rank in ranks]
        if len({place.server for place in places}) == 1:
            link = "server"
        else:
            link = "rack" if len({place.rack for place in places}) == 1 else "spine"
        return Group(kind, tuple(ranks), link)

    def links_of_groups(self) -> dict[str, Counter[str]]:
        """Kind of group -> how many of them need which link."""
        result: dict[str, Counter[str]] = {}
        for group in self.groups():
            result.setdefault(group.kind, Counter())[group.link] += 1
        return result
