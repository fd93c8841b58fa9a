"""Where ranks sit: the paper's figure 5, and links by brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.config_cluster import ClusterConfig
from pangu_alpha.parallel.layout import Layout
from pangu_alpha.parallel.topology import Topology
from pangu_alpha.parallel.topology_picture import draw_topology

PAPER = Layout(data_parallel=16, model_parallel=8, pipeline_stages=16, optimizer_shards=16, micro_batches=16)
CLOUD_BRAIN = ClusterConfig(devices_per_server=8, servers_per_rack=16, racks=32)


def test_the_papers_figure():
    # A rack holds a whole model; in it the first server is stage 0, the next one stage 1; racks are replicas.
    topology = Topology(PAPER, CLOUD_BRAIN)
    assert topology.ranks[:8] == tuple(range(8))
    assert topology.ranks[8:16] == tuple(range(128, 136))
    for rank in range(2048):
        place = topology.place(rank)
        assert place.rack == PAPER.data_index(rank)
        assert place.server % 16 == PAPER.stage_of(rank)
        assert place.device == PAPER.model_index(rank)
    assert topology.links_of_groups() == {
        "model": {"server": 256}, "pipeline": {"rack": 1920}, "data": {"spine": 128}, "optimizer": {"spine": 128},
    }  # fmt: skip


def test_model_parallelism_wider_than_a_server_crosses_servers():
    released = Layout(data_parallel=8, model_parallel=16, pipeline_stages=16, micro_batches=32)
    assert Topology(released, CLOUD_BRAIN).links_of_groups()["model"] == {"rack": 128}


def test_one_device_has_no_groups():
    assert Topology(Layout(), ClusterConfig()).links_of_groups() == {}


def test_too_few_devices():
    with pytest.raises(InvalidValue) as error:
        Topology(PAPER, ClusterConfig())
    assert error.value.key == "cluster.racks"
    assert "are 64, and the layout has 2048 ranks" in error.value.allowed


SIZES = st.sampled_from([1, 2, 3, 4])


@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_every_rank_has_a_place_of_its_own_and_links_are_what_places_say(data, model, stages, devices, servers):
    layout = Layout(data, model, stages, optimizer_shards=data, micro_batches=stages)
    cluster = ClusterConfig(devices_per_server=devices, servers_per_rack=servers, racks=64)
    topology = Topology(layout, cluster)
    places = [topology.place(rank) for rank in range(layout.devices)]
    assert len({(place.server, place.device) for place in places}) == layout.devices
    assert max(place.server * devices + place.device for place in places) == layout.devices - 1
    groups = topology.groups()
    for group in groups:
        links = {topology.link(one, other) for one in group.ranks for other in group.ranks if one != other}
        assert group.link == max(links, key=["server", "rack", "spine"].index)
    kinds = [group.kind for group in groups]
    assert kinds.count("model") == (data * stages if model > 1 else 0)
    assert kinds.count("data") == (model * stages if data > 1 else 0)
    assert kinds.count("pipeline") == data * model * (stages - 1)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_is_drawn(tmp_path, ending):
    path = tmp_path / f"topology.{ending}"
    draw_topology(Topology(Layout(2, 2, 2), ClusterConfig(devices_per_server=2, servers_per_rack=2, racks=2)), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
