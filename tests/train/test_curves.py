"""The loss curve: its numbers, and a picture that is really one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pangu_alpha.errors import PanguError
from pangu_alpha.train.curves import History, draw_curves, smooth, thin
from pangu_alpha.train.metrics import MetricsLog, RunScale, StepMetrics


def history_of(steps: int) -> History:
    history = History()
    for step in range(1, steps + 1):
        history.add({"kind": "step", "step": step, "loss": 4 + 5 / step, "learning_rate": 1e-3})
        if step % 10 == 0:
            history.add({"kind": "validation", "step": step, "loss": 4.2 + 5 / step})
    return history


def colours_of(path) -> set[tuple[int, int, int]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=1 << 24)}


def test_history_is_what_the_run_wrote(tmp_path):
    log = MetricsLog(tmp_path, RunScale(8, 6e9))
    for step in (1, 2):
        log.write_step(StepMetrics(step, 9.0 - step, 1e-3 * step, 1.0, 1.0, True, 0.5, 2048, 0))
    log.write_step(StepMetrics(3, float("nan"), 1e-3, 1.0, 1.0, False, 0.5, 2048, 0))
    log.write_validation(2, 7.5)
    log.close()
    history = History.read(tmp_path / "metrics.jsonl")
    assert history.steps == [1, 2]  # a loss that is no number is not drawn
    assert history.losses == [8.0, 7.0]
    assert history.learning_rates == [1e-3, 2e-3]
    assert history.validations == {2: 7.5}


def test_smoothing_keeps_constants_and_straight_lines():
    assert smooth([3.0] * 50, width=4.0) == pytest.approx([3.0] * 50)
    line = np.arange(200.0)
    assert smooth(line, width=4.0)[20:-20] == pytest.approx(line[20:-20])  # no lag


def test_smoothing_removes_noise():
    noise = np.random.default_rng(1).standard_normal(1000)
    assert smooth(noise, width=8.0).std() < 0.3
    assert smooth([2.0], width=8.0) == pytest.approx([2.0])


def test_thinning_takes_means():
    assert thin([1.0, 3.0, 5.0, 7.0, 9.0], most=3) == pytest.approx([2.0, 6.0, 9.0])
    assert thin([1.0, 2.0], most=3) == pytest.approx([1.0, 2.0])
    assert len(thin(range(1_000_001))) <= 4001


def test_the_picture_shows_training_and_held_out_text(tmp_path):
    draw_curves(history_of(100), tmp_path / "loss.png", "a title")
    colours = colours_of(tmp_path / "loss.png")
    assert (0x1F, 0x5F, 0xA8) in colours  # the smoothed training loss
    assert (0xC8, 0x50, 0x1E) in colours  # the held-out text
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.width >= 1000
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]  # nothing half-written beside it


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", [0, 1, 2, 10])
def test_short_runs_can_be_drawn(tmp_path, steps):
    draw_curves(history_of(steps), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
def test_a_run_without_validation_and_without_progress_can_be_drawn(tmp_path):
    history = History(list(range(1, 41)), [4.0] * 40, [1e-3] * 40)
    draw_curves(history, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").exists()


@pytest.mark.filterwarnings("error")
def test_a_diverged_loss_can_be_drawn(tmp_path):
    history = history_of(10)
    history.add({"kind": "step", "step": 11, "loss": 5e4, "learning_rate": 1e-3})
    draw_curves(history, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").exists()


def test_a_spike_does_not_flatten_the_curve(tmp_path):
    def height_of_training(history: History) -> int:
        draw_curves(history, tmp_path / "loss.png")
        with Image.open(tmp_path / "loss.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        rows = np.flatnonzero((pixels == (0x1F, 0x5F, 0xA8)).all(axis=2).any(axis=1))
        return int(rows.max() - rows.min())

    calm, spiked = history_of(300), history_of(300)
    spiked.losses[150] = 500.0
    assert height_of_training(spiked) > 0.6 * height_of_training(calm)


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PanguError, match="cannot write"):
        draw_curves(history_of(3), tmp_path / "file" / "loss.png")


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, pangu_alpha.train.monitor; print('matplotlib' in sys.modules, 'mindspore' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["False", "False"]
