"""A picture of a topology: racks, servers and devices, coloured by pipeline stage."""

from __future__ import annotations

from pathlib import Path

from pangu_alpha.files import atomic_write
from pangu_alpha.parallel.topology import Topology

MOST_NUMBERED_RANKS = 256
"""With more ranks their numbers could not be read."""


def draw_topology(topology: Topology, path: Path) -> None:
    """Draw who sits where, as SVG or PNG by the ending of `path`.

    One row a server and one square a device, racks beside each other; the colour tells the stage, the number the rank,
    and below each server stands which replica of the model it works for.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plot
    from matplotlib.patches import Rectangle

    layout, cluster = topology.layout, topology.cluster
    used = [topology.place(rank) for rank in range(layout.devices)]
    racks = max(place.rack for place in used) + 1
    servers = min(cluster.servers_per_rack, max(place.server for place in used) + 1)
    columns = min(racks, 8)
    lines = -(-racks // columns)
    width, height = cluster.devices_per_server + 1.5, servers + 1.6
    scale = min(0.42, 18 / (columns * width), 60 / (lines * height))
    figure, axes = plot.subplots(figsize=(max(4.0, columns * width * scale), lines * height * scale + 0.8))
    colours = plot.get_cmap("viridis", max(2, layout.pipeline_stages))
    for rank, place in enumerate(used):
        left = place.rack % columns * width
        top = -(place.rack // columns) * height
        x, y = left + place.device, top - 1 - place.server % cluster.servers_per_rack
        stage = layout.stage_of(rank)
        axes.add_patch(Rectangle((x, y), 0.94, 0.94, color=colours(stage), linewidth=0))
        if layout.devices <= MOST_NUMBERED_RANKS:
            axes.text(x + 0.47, y + 0.47, str(rank), ha="center", va="center", fontsize=5, color="white")
        if place.device == 0 and place.server % cluster.servers_per_rack == 0:
            axes.text(left, top + 0.2, f"rack {place.rack}, replica {layout.data_index(rank)}", fontsize=7)
    axes.set_xlim(-0.3, columns * width)
    axes.set_ylim(-lines * height, 1.0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(f"{layout}", fontsize=8, loc="left")
    handles = [Rectangle((0, 0), 1, 1, color=colours(stage)) for stage in range(layout.pipeline_stages)]
    if len(handles) > 1:
        axes.legend(handles, [f"stage {n}" for n in range(len(handles))], fontsize=6, ncols=8, loc="upper left",
                    bbox_to_anchor=(0, 0), frameon=False)  # fmt: skip
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=150, bbox_inches="tight")
    plot.close(figure)
