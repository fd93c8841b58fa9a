"""`pangu-alpha topology`: the tables, and rank tables in and out."""

from __future__ import annotations

import json

import pytest

from pangu_alpha.cli.main import main

RUN = ["topology", "--config", "configs/runs/13b_16.yaml"]


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch, repository):
    monkeypatch.chdir(repository)


def test_it_prints_who_sits_where(capsys):
    assert main(RUN) == 0
    shown = capsys.readouterr().out
    assert "16 ranks: data 2, model 8, pipeline 1" in shown
    assert "model           2           8                 2" in shown
    assert "0     1       0      1        8-15" in shown


def hosts_file(folder) -> str:
    path = folder / "hosts.txt"
    lines = [f"10.0.0.{s} " + ",".join(f"192.{d}.0.{s}" for d in range(8)) + "  # server" for s in (1, 2)]
    path.write_text("\n".join(["# two servers", *lines]))
    return str(path)


def test_a_rank_table_is_made_from_hosts_and_ordered_by_the_mapping(tmp_path, capsys):
    # Two stages of eight: the second server holds both replicas' second stage no more than figure 5 wants.
    words = [*RUN, "parallel.pipeline_stages=2", "train.micro_batches=2", "train.batch_size=16"]
    words += [
        "parallel.split_vocabulary=true",
        "parallel.model_parallel=4",
        "--hosts",
        hosts_file(tmp_path),
        "--write",
        str(tmp_path / "hccl.json"),
    ]
    assert main(words) == 0
    assert "rank table:" in capsys.readouterr().out
    table = json.loads((tmp_path / "hccl.json").read_text())
    ranks = [[int(device["rank_id"]) for device in server["device"]] for server in table["server_list"]]
    assert ranks == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]  # a replica a server
    assert main([*RUN, "--rank-table", str(tmp_path / "hccl.json")]) == 0
    assert "the rank table fits: 2 servers, 16 devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--picture", "a.pdf"], "it must end with .svg or .png"),
        (["--write", "a.json"], "--write needs a rank table"),
        (["--hosts", "no.txt"], "no.txt: cannot be read: No such file or directory"),
        (["cluster.servers_per_rack=1"], "command line: cluster.racks is 1;"),
    ],
)
def test_bad_use_is_one_line(words, message, capsys):
    assert main([*RUN, *words]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if message.startswith("command line"):
        message = "configs/clusters/atlas_server.yaml"
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1", "hosts.txt:1: 10.0.0.1 has no devices"),
        ("10.0.0.1 192.168.0.300", "hosts.txt:1: 192.168.0.300 is no IP address"),
        ("10.0.0.1 192.168.0.1\n\n10.0.0.1 192.168.0.2", "hosts.txt:3: server 10.0.0.1 is listed twice"),
        ("# none", "hosts.txt: no server is listed"),
        ("10.0.0.1 192.168.0.1", "has 1 devices, and the run is laid out on 16"),
    ],
)
def test_bad_hosts_are_one_line(tmp_path, text, message, capsys):
    (tmp_path / "hosts.txt").write_text(text)
    assert main([*RUN, "--hosts", str(tmp_path / "hosts.txt"), "--write", str(tmp_path / "t.json")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "t.json").exists()
