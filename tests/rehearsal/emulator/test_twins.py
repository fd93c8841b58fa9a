"""Every twin does on all ranks what one device does; `.ci/run` runs two of them by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.config_file import load_config
from pangu_alpha.rehearsal.emulator.emulation import EmulatedRun, compare_run, compile_with_reference

TWINS = sorted((Path(__file__).parents[3] / "configs" / "twins").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_twin_does_what_one_device_does(path, tmp_path):
    run, references = compile_with_reference(load_config(path).config, tmp_path, 2)
    compared = list(compare_run(EmulatedRun(run), references))
    assert len(compared) == 2
    assert all(step.parameters for step in compared)
    assert [difference for step in compared for difference in step.too_large] == []
