"""The training pipeline: any start, any rank, any number of epochs give the one sequence."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config import Config, DataConfig, ModelConfig, TrainConfig
from pangu_alpha.data.dataset import build_dataset, iterate_batches, training_batches, validation_batches
from pangu_alpha.data.order import Batch, arrange_sequentially, entry_order
from pangu_alpha.data.packing import pack_held_out, write_records
from pangu_alpha.data.sample_files import SampleFiles
from pangu_alpha.data.tokenizer import END_OF_TEXT, PAD
from pangu_alpha.errors import PanguError

SAMPLES, LENGTH = 50, 17


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    rng = np.random.default_rng(1)
    ids = rng.integers(10, 3000, (SAMPLES, LENGTH)).astype(np.int32)
    ids[rng.random(ids.shape) < 0.1] = END_OF_TEXT
    ids[:, 0] = np.arange(100, 100 + SAMPLES)  # the sample's own name
    return ids


@pytest.fixture(scope="module")
def files(samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    folder = tmp_path_factory.mktemp("records")
    first = write_records(samples[:30], folder, "first")
    return SampleFiles((*first, *write_records(samples[30:], folder, "second")), SAMPLES)


@pytest.fixture()
def config() -> Config:
    return Config(
        model=ModelConfig(hidden_size=32, num_heads=2, num_layers=2, seq_length=LENGTH - 1),
        data=DataConfig(order="mixed", permuted_share=0.5, span_length=4),
        train=TrainConfig(seed=7),
    )


def names(batches: list[Batch]) -> list[int]:
    return [int(token) - 100 for batch in batches for token in batch.tokens[:, 0]]


def take(files: SampleFiles, config: Config, batch_size: int, steps: int, **settings: int) -> list[Batch]:
    return list(itertools.islice(iterate_batches(files, config, batch_size, **settings), steps))


def test_every_epoch_visits_every_sample_in_another_order(files: SampleFiles, config: Config) -> None:
    visited = names(take(files, config, 8, 20))
    epochs = [visited[start : start + SAMPLES] for start in range(0, 150, SAMPLES)]
    assert all(sorted(epoch) == list(range(SAMPLES)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(SAMPLES))
    other = names(take(files, replace(config, train=TrainConfig(seed=8)), 8, 5))
    assert other != visited[:40]
    lying = names(take(files, replace(config, data=DataConfig(shuffle=False)), 8, 10))
    assert lying == [position % SAMPLES for position in range(80)]


def test_a_resumed_run_meets_the_tail_of_the_sequence(files: SampleFiles, config: Config) -> None:
    """Also across epochs, in the middle of one, and with batches that span two."""
    whole = take(files, config, 8, 20)
    for step in (0, 1, 6, 7, 13):
        rest = list(iterate_batches(files, config, 8, start_sample=step * 8, steps=20 - step))
        assert len(rest) == 20 - step
        for one, other in zip(whole[step:], rest, strict=True):
            for array, again in zip(one, other, strict=True):
                assert (array == again).all()


def test_ranks_share_one_batch(files: SampleFiles, config: Config) -> None:
    whole = take(files, config, 8, 15)
    parts = [take(files, config, 8, 15, rank=rank, ranks=4) for rank in range(4)]
    for step, batch in enumerate(whole):
        for name, array in batch._asdict().items():
            assert (np.concatenate([getattr(part[step], name) for part in parts]) == array).all()
    with pytest.raises(PanguError, match="cannot be divided among 3"):
        take(files, config, 8, 1, rank=0, ranks=3)


def test_windows_do_not_show(files: SampleFiles, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    import pangu_alpha.data.dataset as dataset

    whole = take(files, config, 8, 10)
    monkeypatch.setattr(dataset, "_WINDOW", 24)
    for one, other in zip(whole, take(files, config, 8, 10), strict=True):
        assert all((array == again).all() for array, again in zip(one, other, strict=True))


def test_each_sample_enters_in_the_order_of_its_epoch_and_number(
    files: SampleFiles, config: Config, samples: np.ndarray
) -> None:
    permuted = 0
    for position, (batch, row) in enumerate((batch, row) for batch in take(files, config, 8, 14) for row in range(8)):
        number = int(batch.tokens[row, 0]) - 100
        order = entry_order(samples[number], 7, position // SAMPLES, number, "mixed", 0.5, 4)
        assert (batch.tokens[row] == samples[number][order[:-1]]).all()
        assert (batch.labels[row] == samples[number][order[1:]]).all()
        permuted += int((order != np.arange(LENGTH)).any())
    assert 30 < permuted < 80


def test_the_mindspore_dataset_gives_the_same(files: SampleFiles, config: Config) -> None:
    dataset = build_dataset(files, config, 8, 16, 9)
    assert dataset.get_dataset_size() == 9
    assert dataset.get_col_names() == list(Batch._fields)
    expected = list(iterate_batches(files, config, 8, 16, 9))
    for _ in range(2):
        given = list(dataset.create_tuple_iterator(num_epochs=1, output_numpy=True))
        assert len(given) == 9
        for one, other in zip(expected, given, strict=True):
            assert all(
                again.dtype == np.int32 and (array == again).all() for array, again in zip(one, other, strict=True)
            )


def test_a_reader_left_early_does_not_hang(files: SampleFiles, config: Config) -> None:
    for _ in range(3):
        iterator = build_dataset(files, config, 2, 0, 10_000).create_tuple_iterator(num_epochs=1)
        next(iter(iterator))
        del iterator


def test_reading_ahead_gives_the_same_and_keeps_errors_short(files: SampleFiles, config: Config) -> None:
    for one, other in zip(
        iterate_batches(files, config, 8, 16, 9), training_batches(files, config, 8, 16, 9), strict=True
    ):
        assert all((array == again).all() for array, again in zip(one, other, strict=True))
    next(training_batches(files, config, 8, 16, 9))
    with pytest.raises(PanguError) as caught:
        next(training_batches(SampleFiles(files.files, 0), config, 8, 0, 9))
    assert str(caught.value) == "there are no training samples"


def test_a_batch_larger_than_the_data(files: SampleFiles, config: Config) -> None:
    visited = names(take(files, config, 120, 2))
    assert visited == names(take(files, config, 8, 30))


def test_no_samples(config: Config) -> None:
    with pytest.raises(PanguError, match="no training samples"):
        take(SampleFiles((), 0), config, 8, 1)
    assert list(validation_batches(SampleFiles((), 0), config, 8)) == []


def test_held_out_tokens_are_measured_once_each(tmp_path: Path, config: Config) -> None:
    rng = np.random.default_rng(2)
    ids = rng.integers(10, 3000, 147).astype(np.int32)
    ids[[40, 41, 90, 146]] = END_OF_TEXT
    packed = pack_held_out(ids, LENGTH - 1)
    files = SampleFiles(tuple(write_records(packed, tmp_path, "valid")), len(packed))
    batches = list(validation_batches(files, config, 4))
    assert [batch.tokens.shape for batch in batches] == [(4, LENGTH - 1)] * 3
    counted = [label for batch in batches for label in batch.labels[batch.tokens != PAD].tolist()]
    assert Counter(counted) == Counter(ids.tolist())
    assert counted == ids.tolist()
    expected = arrange_sequentially(packed[:4], True, True)
    assert all((array == again).all() for array, again in zip(batches[0], expected, strict=True))
    assert sum((batch.tokens[:, 0] != PAD).sum() for batch in validation_batches(files, config, 4, samples=6)) == 6
