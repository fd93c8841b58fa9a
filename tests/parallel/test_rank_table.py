"""Rank tables: three forms read, written back as they were, and every fault one line that names the field."""

from __future__ import annotations

import copy
import json
import random

import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.parallel.rank_table import RankTable, parse_rank_table, read_rank_table
from pangu_alpha.parallel.rank_table_writing import (
    format_rank_table,
    merge_rank_tables,
    reorder_ranks,
    table_of_hosts,
    write_rank_table,
)


def device(number: int, rank: int, **other: str) -> dict:
    return {
        "device_id": str(number),
        "device_ip": f"192.{100 + number}.{rank // 8}.{2 + rank % 8}",
        "rank_id": str(rank),
    } | other


def server(number: int, devices: int = 2, **other: str) -> dict:
    entries = [device(n, number * devices + n) for n in range(devices)]
    return {"server_id": f"10.0.0.{number + 1}", "device": entries, "host_nic_ip": "reserve"} | other


PLAIN = {"version": "1.0", "server_count": "2", "server_list": [server(0), server(1)], "status": "completed"}
SUPER_POD = {
    "version": "1.2",
    "server_count": "1",
    "server_list": [
        {
            "server_id": "10.0.0.1",
            "device": [device(n, n, super_device_id=str(100 + n), device_port="16666") for n in range(2)],
            "host_ip": "10.0.0.1",
        }
    ],
    "super_pod_list": [{"super_pod_id": "0", "server_list": [{"server_id": "10.0.0.1"}]}],
    "status": "completed",
}
GROUPS = {
    "version": "1.0",
    "status": "completed",
    "server_group_list": [
        {"group_id": "0", "server_count": "1", "server_list": [server(0, server_ip="172.16.0.9")]},
        {"group_id": "1", "server_count": "1", "server_list": [server(1, hardware_type="800I-A2-32G")]},
    ],
}


@pytest.mark.parametrize("content", [PLAIN, SUPER_POD, GROUPS], ids=["1.0", "1.2", "groups"])
def test_a_table_is_read_and_written_back_with_all_its_keys(tmp_path, content):
    path = tmp_path / "hccl.json"
    path.write_text(json.dumps(content))
    table = read_rank_table(path)
    assert [d.rank for s in table.servers for d in s.devices] == list(range(table.devices))
    write_rank_table(table, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == content


def test_a_server_is_found_by_any_of_its_addresses():
    table = parse_rank_table(GROUPS, "t")
    assert table.server_of(["127.0.0.1", "172.16.0.9"]) is table.servers[0]
    assert table.server_of(["10.0.0.2"]).first_rank == 2
    assert table.server_of(["10.0.0.3"]) is None


def changed(content: dict, *path, value) -> dict:
    result = copy.deepcopy(content)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(PLAIN, "status", value="initializing"), 't: status is "initializing": the table is still being made'),
        (changed(PLAIN, "version", value="2.0"), 't: version is "2.0"; allowed: 1.0, 1.2'),
        (changed(PLAIN, "server_count", value="3"), 't: server_count is "3", but server_list has 2 entries'),
        (
            changed(PLAIN, "server_list", 1, "device", 1, "device_id", value="0"),
            "t: server_list[1].device[1].device_id is 0, which device[0] of the same server is already",
        ),
        (
            changed(PLAIN, "server_list", 1, "device", 0, "rank_id", value="1"),
            "t: rank_id 1 is that of device 1 of server 10.0.0.1 and of device 0 of server 10.0.0.2",
        ),
        (changed(PLAIN, "server_list", 1, "device", 0, "rank_id", value="7"), "t: rank_id 2 is missing"),
        (
            changed(PLAIN, "server_list", 0, "device", 1, "device_ip", value="192.168.1.256"),
            't: server_list[0].device[1].device_ip is "192.168.1.256"; it must be an IP address',
        ),
        (
            changed(PLAIN, "server_list", 0, "device", 1, "device_ip", value="192.100.0.2"),
            "t: device_ip 192.100.0.2 is that of device 0 of server 10.0.0.1 and of device 1",
        ),
        (changed(PLAIN, "server_list", 0, "device", value=[]), "t: server_list[0].device is []; it must be a list"),
        (changed(PLAIN, "server_list", 0, "server_id", value=None), "t: server_list[0].server_id is null"),
        (changed(GROUPS, "server_group_list", 1, value=3), "t: server_group_list[1] is 3; it must hold"),
        (changed(GROUPS, "server_group_list", 1, "server_list", 0, "device", 0, "rank_id", value="x"),
         't: server_group_list[1].server_list[0].device[0].rank_id is "x"'),
        ({"version": "1.0"}, "t: neither server_list nor server_group_list is there"),
        ([], "t: the file is []; it must hold keys and values"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_that_names_the_field(content, message):
    with pytest.raises(PanguError) as error:
        parse_rank_table(content, "t")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_what_is_no_json_or_not_there(tmp_path):
    (tmp_path / "a.json").write_text("{'a'")
    with pytest.raises(PanguError, match=r"a.json: no JSON \(") as error:
        read_rank_table(tmp_path / "a.json")
    assert "\n" not in str(error.value)
    with pytest.raises(PanguError, match="b.json: cannot be read: No such file"):
        read_rank_table(tmp_path / "b.json")


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def test_a_thousand_broken_tables_give_no_traceback(tmp_path):
    random.seed(7)
    odd = [
        None,
        True,
        -1,
        2**70,
        1.5,
        "",
        "x",
        "0",
        "1e3",
        "٣",
        "10.0.0.1",
        [],
        {},
        [[]],
        {"device_id": "0"},
        "\x00",
        "9" * 400,
    ]
    refused = 0
    for number in range(1000):
        table = copy.deepcopy(random.choice([PLAIN, SUPER_POD, GROUPS]))
        for _ in range(random.choice([1, 1, 2, 3])):
            path = random.choice([place for place in places(table) if place])
            parent = table
            for key in path[:-1]:
                parent = parent[key]
            action = random.random()
            if action < 0.25:
                del parent[path[-1]]
            elif action < 0.4 and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[path[-1]]))
            else:
                parent[path[-1]] = copy.deepcopy(random.choice(odd))
        text = json.dumps(table)
        if number % 5 == 0:
            cut = random.randrange(len(text))
            text = text[:cut] + random.choice(["", "\x00", "}", "[" * 3000]) + text[cut + 1 :]
        path = tmp_path / "t.json"
        path.write_text(text)
        try:
            assert isinstance(read_rank_table(path), RankTable)
        except PanguError as error:
            refused += 1
            assert "\n" not in str(error)
            assert str(error).startswith(str(path))
            assert len(str(error)) < 400 + len(str(path))
    assert refused > 500


def test_a_table_of_hosts_has_its_ranks_in_their_order():
    table = table_of_hosts([("10.0.0.1", ["192.168.1.1", "192.168.1.2"]), ("10.0.0.2", ["192.168.1.3"])])
    content = json.loads(format_rank_table(table))
    assert content["server_count"] == "2"
    assert content["server_list"][1] == {
        "server_id": "10.0.0.2",
        "device": [{"device_id": "0", "device_ip": "192.168.1.3", "rank_id": "2"}],
        "host_nic_ip": "reserve",
    }
    assert parse_rank_table(content, "t") == parse_rank_table(json.loads(format_rank_table(table)), "t")


def single(number: int) -> RankTable:
    """A server's own table, ranks from 0."""
    entry = server(number)
    for rank, item in enumerate(entry["device"]):
        item["rank_id"] = str(rank)
    return parse_rank_table({"version": "1.0", "server_count": "1", "server_list": [entry], "status": "completed"}, "t")


def test_tables_of_single_servers_are_merged():
    merged = merge_rank_tables([single(0), single(1)])
    assert json.loads(format_rank_table(merged)) == PLAIN
    with pytest.raises(PanguError, match="server 10.0.0.1 is in two of the rank tables"):
        merge_rank_tables([single(0), single(0)])


def test_ranks_are_given_anew_in_the_order_of_servers_and_devices():
    table = reorder_ranks(parse_rank_table(PLAIN, "t"), [0, 2, 1, 3])
    assert [(d.number, d.rank) for s in table.servers for d in s.devices] == [(0, 0), (1, 2), (0, 1), (1, 3)]
    with pytest.raises(PanguError, match="has 4 devices, and the run is laid out on 8"):
        reorder_ranks(table, range(8))
