from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config import Config
from pangu_alpha.data.baseline import measure_baseline
from pangu_alpha.data.character_ngram import CharacterTrigram
from pangu_alpha.data.held_out import is_held_out, packing_key
from pangu_alpha.data.packing import write_records
from pangu_alpha.data.prepare import prepare


def test_both_models_are_measured_on_the_same_text(
    make_config: Callable[..., Config], text_file: Path, tmp_path: Path
) -> None:
    """The texts spelled back from ids are the documents themselves, where the vocabulary knows every character."""
    prepared = prepare(make_config(text_file, held_out_share=0.2, tail="pad"), tmp_path / "prepared")
    documents = sorted(set(text_file.read_text(encoding="utf-8").split("\n\n")), key=packing_key)
    training = [text for text in documents if not is_held_out(text, 0.2)]
    held_out = [text for text in documents if is_held_out(text, 0.2)]
    baseline = measure_baseline(prepared)
    assert baseline is not None
    assert baseline.bits == pytest.approx(CharacterTrigram(training).bits(held_out), rel=1e-12)
    assert baseline.bits_per_character == pytest.approx(baseline.bits / sum(len(text) + 1 for text in held_out))
    assert 4 < baseline.bits_per_character < 6  # 35 characters drawn evenly, digits and ends


def test_own_records_are_measured_too(make_config: Callable[..., Config], tmp_path: Path) -> None:
    ids = np.random.default_rng(3).integers(10, 50, (60, 17)).astype(np.int32)
    ids[::3, 5] = 9
    write_records(ids, tmp_path, "own")
    prepared = prepare(make_config(tmp_path / "own_00000.mindrecord", held_out_share=0.2), tmp_path / "prepared")
    baseline = measure_baseline(prepared)
    assert baseline is not None and 3 < baseline.bits_per_character < 8


def test_nothing_held_out(make_config: Callable[..., Config], text_file: Path, tmp_path: Path) -> None:
    assert measure_baseline(prepare(make_config(text_file, held_out_share=0.0), tmp_path / "prepared")) is None
