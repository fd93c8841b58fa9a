"""Checkpoints are written whole or not at all, and what was damaged is found, named and stepped over."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.checkpoint import save as save_module
from pangu_alpha.checkpoint.format import (
    FORMAT,
    MANIFEST,
    DamagedCheckpointError,
    Manifest,
    canonical_sha256,
    step_name,
    step_of,
)
from pangu_alpha.checkpoint.load import (
    Checkpoint,
    is_inference_tensor,
    list_checkpoints,
    newest_good_checkpoint,
    saved_config,
)
from pangu_alpha.checkpoint.save import save_checkpoint
from pangu_alpha.config import Config, DataConfig, ModelConfig, to_dict
from pangu_alpha.errors import PanguError

CONFIG = Config(name="test", model=ModelConfig(50, 8, 2, 2, 16), data=DataConfig(sources=("a.txt", "b")))


def arrays(value: float = 1.0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(int(value * 10))
    return {
        "word_table": generator.standard_normal((50, 8)).astype(np.float32),
        "half": generator.standard_normal((3, 5)).astype(np.float16),
        "adam_m.word_table": np.full((50, 8), value, np.float32),
        "adam_v.word_table": np.zeros((50, 8), np.float32),
        "global_step": np.array([int(value)], np.int32),
        "loss_scale": np.array(65536.0, np.float32),
    }


def save(directory: Path, step: int = 200, keep: int = 0, **changes) -> Path:
    given_arrays = changes.pop("arrays", arrays(step / 100))
    state = {"step": step, "samples": step * 8, "position": [1, 2], "median": float("nan"), "skipped": {"3": 0.1}}
    return save_checkpoint(directory, step, given_arrays, state, CONFIG, "ab" * 32, keep)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def test_everything_comes_back(tmp_path: Path) -> None:
    directory = save(tmp_path)
    assert directory == tmp_path / "step_00000200"
    assert sorted(path.name for path in directory.iterdir()) == [MANIFEST, "rank_0000.safetensors"]
    checkpoint = Checkpoint(directory)
    read = dict(checkpoint.tensors())
    for name, array in arrays(2.0).items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)
    assert set(read) == set(arrays())
    assert checkpoint.step == 200
    assert checkpoint.train_state["position"] == [1, 2]
    assert np.isnan(checkpoint.train_state["median"])
    assert saved_config(checkpoint) == CONFIG
    manifest = checkpoint.manifest
    assert manifest.tokenizer_sha256 == "ab" * 32
    assert manifest.layout == {"ranks": 1}
    assert abs(manifest.created - time.time()) < 60
    assert manifest.versions["numpy"] == np.__version__
    assert manifest.config_sha256 == canonical_sha256(to_dict(CONFIG))


def test_other_programs_read_and_check_the_file(tmp_path: Path) -> None:
    path = save(tmp_path) / "rank_0000.safetensors"
    for name, array in safetensors.numpy.load_file(path).items():
        np.testing.assert_array_equal(array, arrays(2.0)[name])
    manifest = json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["format"] == FORMAT
    assert f"xxh3_128:{xxhash.xxh3_128_hexdigest(path.read_bytes())}" == manifest["files"][0]["checksum"]
    assert path.stat().st_size == manifest["files"][0]["bytes"]
    by_name = {entry["name"]: entry for entry in manifest["tensors"]}
    table = by_name["word_table"]
    assert table["slice"] == [[0, 50], [0, 8]]
    assert table["checksum"] == f"xxh3_128:{xxhash.xxh3_128_hexdigest(arrays(2.0)['word_table'].tobytes())}"


def test_format_1_is_still_read(tmp_path: Path) -> None:
    directory = save(tmp_path)
    path = directory / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    content["format"] = 1
    del content["manifest_sha256"]
    file = directory / "rank_0000.safetensors"
    stored = safetensors.numpy.load_file(file)
    for entry in content["tensors"]:
        del entry["checksum"]
        entry["sha256"] = hashlib.sha256(stored[entry["name"]].tobytes()).hexdigest()
    del content["files"][0]["checksum"]
    content["files"][0]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    path.write_text(json.dumps({**content, "manifest_sha256": canonical_sha256(content)}), encoding="utf-8")
    Checkpoint(directory).verify()
    flip(file, file.stat().st_size - 1)
    with pytest.raises(DamagedCheckpointError, match="differs from its checksum"):
        Checkpoint(directory).verify()


def test_mindspore_reads_the_file(tmp_path: Path) -> None:
    import mindspore

    path = save(tmp_path) / "rank_0000.safetensors"
    loaded = mindspore.load_checkpoint(str(path), format="safetensors")
    assert set(loaded) == set(arrays())
    np.testing.assert_array_equal(loaded["word_table"].asnumpy(), arrays(2.0)["word_table"])


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(
            st.sampled_from(["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=6,
    )
)
def test_any_names_types_and_shapes(tmp_path_factory: pytest.TempPathFactory, tensors) -> None:
    given_arrays = {
        name: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        for name, (dtype, shape) in tensors.items()
    }
    directory = save(tmp_path_factory.mktemp("any"), arrays=given_arrays)
    read = dict(Checkpoint(directory).tensors())
    assert set(read) == set(given_arrays)
    for name, array in given_arrays.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


def test_arrays_in_other_memory_orders_are_stored_row_by_row(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    given_arrays = {"transposed": base.T, "strided": base[::2, 1::2], "big": base.astype(">f4")}
    read = dict(Checkpoint(save(tmp_path, arrays=given_arrays)).tensors())
    for name, array in given_arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_a_type_that_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PanguError, match="tensor c has type complex64"):
        save(tmp_path, arrays={"c": np.zeros(2, np.complex64)})
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (100, 200, 300, 1000):
        save(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00001000", "step_00000300"]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, arrays=arrays(7.0))
    save(tmp_path, arrays=arrays(8.0))
    assert dict(Checkpoint(tmp_path / step_name(200)).tensors())["adam_m.word_table"][0, 0] == 8.0
    assert len(list(tmp_path.iterdir())) == 1


def test_step_names() -> None:
    assert step_of(step_name(123)) == 123
    assert step_of(step_name(1234567890)) == 1234567890
    for name in ("step_12", "step_0000000x", ".step_00000200.host.1.partial", "manifest.json"):
        assert step_of(name) is None


# Interrupted writing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_failing_disk_leaves_the_older_checkpoint_alone(tmp_path: Path, monkeypatch, code: int, after: int) -> None:
    save(tmp_path, 100)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    real = Path.open

    class FailingFile:
        def __init__(self, file):
            self.file, self.writes = file, 0

        def write(self, data):
            if self.writes == after:
                raise OSError(code, os.strerror(code))
            self.writes += 1
            return self.file.write(data)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    def opened(path, *words, **more):
        file = real(path, *words, **more)
        return FailingFile(file) if path.suffix == ".safetensors" else file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(PanguError) as error:
        save(tmp_path, 200, keep=1)
    monkeypatch.undo()
    assert "step_00000200" in str(error.value)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path: Path):
    """A place for files of up to 128 KiB and what a larger one is told: a full disk, or else a limit of the process."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield place, "no space is left on the disk"
        subprocess.run(["umount", place], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, before[1]))  # Python ignores the signal that goes with it
    yield place, "would exceed the size"
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(small_disk) -> None:
    place, words = small_disk
    small = {"word_table": np.zeros((100, 100), np.float32)}
    save(place, 100, arrays=small)
    with pytest.raises(PanguError, match=words):
        save(place, 200, arrays={"word_table": np.zeros((600, 100), np.float32)})
    assert [path.name for path in place.iterdir()] == ["step_00000100"]
    assert newest_good_checkpoint(place)[0].step == 100
    save(place, 200, arrays=small)


def test_a_directory_closed_to_this_user(tmp_path: Path, monkeypatch) -> None:
    def closed(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(arguments[0]))

    monkeypatch.setattr(Path, "mkdir", closed)
    with pytest.raises(PanguError, match="permission denied"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == []


SAVE_FOR_EVER = """
    import sys
    from pathlib import Path
    import numpy as np
    from pangu_alpha.checkpoint.save import save_checkpoint
    from pangu_alpha.config import Config
    step = int(sys.argv[2])
    while True:
        values = {f"tensor_{i}": np.full((64, 1024), step, np.float32) for i in range(8)}
        save_checkpoint(Path(sys.argv[1]), step, values, {"step": step}, Config(), "00", keep=2)
        print(step, flush=True)
        step += 1
"""


@pytest.mark.parametrize("attempt", range(4))
def test_killed_while_saving_loses_nothing_that_was_announced(tmp_path: Path, attempt: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SAVE_FOR_EVER), tmp_path, "1"], stdout=subprocess.PIPE, text=True
    )
    announced = 0
    while announced < 3:
        announced = int(process.stdout.readline())
    time.sleep(0.004 * attempt)
    process.send_signal(signal.SIGKILL)
    announced = max([announced, *map(int, process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    checkpoint, damages = newest_good_checkpoint(tmp_path)
    assert damages == []
    assert checkpoint.step in (announced, announced + 1)
    for _, array in checkpoint.tensors():
        assert (array == checkpoint.step).all()


# Damage


def damaged(tmp_path: Path, spoil) -> str:
    """Spoil the newest of two checkpoints; the line about it, after checking that the older one is taken."""
    save(tmp_path, 100)
    newest = save(tmp_path, 200)
    spoil(newest)
    checkpoint, damages = newest_good_checkpoint(tmp_path)
    assert checkpoint.step == 100
    assert len(damages) == 1
    assert "\n" not in damages[0]
    return damages[0]


def place_of(directory: Path, name: str) -> int:
    """Offset of a tensor's first byte in the rank's file."""
    content = (directory / "rank_0000.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    return 8 + size + json.loads(content[8 : 8 + size])[name]["data_offsets"][0]


@pytest.mark.parametrize("name", ["word_table", "half", "global_step", "adam_v.word_table", "loss_scale"])
def test_a_flipped_bit_names_file_and_tensor(tmp_path: Path, name: str, caplog) -> None:
    line = damaged(tmp_path, lambda d: flip(d / "rank_0000.safetensors", place_of(d, name) + 1))
    assert f"step_00000200/rank_0000.safetensors is damaged: tensor {name} differs from its checksum" in line
    assert "the checkpoint before it is tried" in caplog.text


def test_a_moment_that_is_damaged_does_not_matter_for_inference(tmp_path: Path) -> None:
    newest = save(tmp_path, 200)
    flip(newest / "rank_0000.safetensors", place_of(newest, "adam_m.word_table"))
    assert newest_good_checkpoint(tmp_path, is_inference_tensor)[0].step == 200
    with pytest.raises(PanguError, match="no good checkpoint is left"):
        newest_good_checkpoint(tmp_path)


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    line = damaged(tmp_path, lambda d: os.truncate(d / "rank_0000.safetensors", 1000))
    assert "has 1000 bytes" in line


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    line = damaged(tmp_path, lambda d: (d / "rank_0000.safetensors").unlink())
    assert "rank_0000.safetensors is missing" in line


@pytest.mark.parametrize("offset", [0, 3, 8, 20, 90])
def test_a_flipped_bit_in_the_header(tmp_path: Path, offset: int) -> None:
    line = damaged(tmp_path, lambda d: flip(d / "rank_0000.safetensors", offset))
    assert "rank_0000.safetensors is damaged" in line


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_bit_in_the_manifest(tmp_path: Path, share: float) -> None:
    def spoil(directory: Path) -> None:
        path = directory / MANIFEST
        flip(path, int(path.stat().st_size * share))

    assert "manifest.json is damaged" in damaged(tmp_path, spoil)


def test_a_manifest_that_is_cut(tmp_path: Path) -> None:
    assert "manifest.json is damaged" in damaged(tmp_path, lambda d: os.truncate(d / MANIFEST, 300))


def test_a_changed_setting_is_noticed(tmp_path: Path) -> None:
    def spoil(directory: Path) -> None:
        path = directory / MANIFEST
        path.write_text(path.read_text(encoding="utf-8").replace('"num_heads": 2', '"num_heads": 4'), encoding="utf-8")

    assert "does not match its own checksum" in damaged(tmp_path, spoil)


def test_a_directory_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    save(tmp_path, 100)
    (save(tmp_path, 200) / MANIFEST).unlink()
    checkpoint, damages = newest_good_checkpoint(tmp_path)
    assert (checkpoint.step, damages) == (100, [])


def test_all_damaged_is_one_line_and_none_is_none(tmp_path: Path) -> None:
    assert newest_good_checkpoint(tmp_path / "nowhere") == (None, [])
    assert newest_good_checkpoint(tmp_path) == (None, [])
    for step in (100, 200):
        os.truncate(save(tmp_path, step) / MANIFEST, 50)
    with pytest.raises(PanguError, match=r"no good checkpoint is left.*step_00000200.*step_00000100") as error:
        newest_good_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_a_later_format_is_refused_with_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pangu_alpha.checkpoint.format.FORMAT", FORMAT + 1)
    directory = save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(PanguError, match="update pangu-alpha") as error:
        Checkpoint(directory)
    assert not isinstance(error.value, DamagedCheckpointError)


# Another shape


def test_shapes_that_fit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(save(tmp_path))
    shapes = {name: array.shape for name, array in arrays().items()}
    checkpoint.check_shapes(shapes, CONFIG)
    del shapes["adam_m.word_table"], shapes["adam_v.word_table"]
    checkpoint.check_shapes(shapes, CONFIG, exact=False)


@pytest.mark.parametrize(
    ("change", "model", "words"),
    [
        (
            {"word_table": (60, 8)},
            {"vocab_size": 60},
            ["word_table", "[50, 8]", "[60, 8]", "model.vocab_size is 50 there and 60 here"],
        ),
        (
            {"query_table": (16, 8)},
            {"num_layers": 3},
            ["query_table", "[16, 8]", "missing there", "model.num_layers is 2 there and 3 here"],
        ),
        (
            {"half": None},
            {"query_layer": False},
            ["half", "[3, 5]", "no place", "model.query_layer is True there and False here"],
        ),
        ({"word_table": (50, 9)}, {}, ["word_table", "no key"]),
    ],
)
def test_another_shape_is_one_line(tmp_path: Path, change, model, words) -> None:
    import dataclasses

    checkpoint = Checkpoint(save(tmp_path))
    shapes = {name: array.shape for name, array in arrays().items()} | change
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **model))
    with pytest.raises(PanguError) as error:
        checkpoint.check_shapes(shapes, config)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


# Configurations of other versions


def test_unknown_settings_are_left_out_and_new_ones_have_defaults(tmp_path: Path, monkeypatch, caplog) -> None:
    values = to_dict(CONFIG)
    values["model"]["from_the_future"] = 3
    del values["model"]["activation"], values["report"]
    monkeypatch.setattr(save_module, "to_dict", lambda config: values)
    checkpoint = Checkpoint(save(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert saved_config(checkpoint) == CONFIG
    assert "model.from_the_future" in caplog.text


def test_a_copied_checkpoint_is_a_checkpoint(tmp_path: Path) -> None:
    copy = tmp_path / "anywhere"
    shutil.copytree(save(tmp_path), copy)
    Checkpoint(copy).verify()
    assert Manifest.read(copy / MANIFEST).step == 200
