from __future__ import annotations

from pangu_alpha.cli.main import main
from pangu_alpha.config_file import load_config


def test_show_prints_what_a_run_would_use_and_where_it_came_from(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {hidden_size: 64, num_heads: 4}\n")
    assert main(["config", "show", "train.steps=3", "--config", str(path), "data.sources=[a.txt]"]) == 0
    shown = capsys.readouterr().out
    lines = {line.partition("#")[0].strip(): line.partition("# ")[2] for line in shown.splitlines()}
    assert lines["hidden_size: 64"] == f"{path}:2"
    assert lines["steps: 3"] == "command line"
    assert lines["vocab_size: 40000"] == "default"
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert load_config(again).config == load_config(path, ["train.steps=3", "data.sources=[a.txt]"]).config
