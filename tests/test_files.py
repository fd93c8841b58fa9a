from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.errors import PanguError
from pangu_alpha.files import atomic_directory, atomic_write, final_name, shown_name, storage_error


def test_a_file_takes_its_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "text.txt"
    with atomic_write(path, "w") as file:
        file.write("今天")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "今天"
    assert [entry.name for entry in path.parent.iterdir()] == ["text.txt"]


def test_names_that_are_not_utf8_can_be_written_and_told_apart(tmp_path: Path) -> None:
    names = [os.fsdecode("今天.txt".encode(encoding)) for encoding in ("utf-8", "gbk", "big5")]
    assert [shown_name(name) for name in names] == ["今天.txt", r"\xbd\xf1\xcc\xec.txt", r"\xa4\xb5\xa4\xd1.txt"]
    with atomic_write(tmp_path / "names.json", "w") as file:
        json.dump(names, file, ensure_ascii=False)
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == names


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="mine"), atomic_write(path, "w") as file:
        file.write("new")
        raise ValueError("mine")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["text.txt"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt), atomic_directory(path) as partial:
        (partial / "half").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    for content in ("one", "two"):
        with atomic_directory(path) as partial:
            (partial / "part").mkdir()
            (partial / "part" / "file").write_text(content)
        assert (path / "part" / "file").read_text() == content
    with atomic_directory(path, replace=False) as partial:
        (partial / "other").write_text("three")
    assert (path / "part" / "file").read_text() == "two" and not (path / "other").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "set"
    script = (
        "import os, signal, sys\nfrom pangu_alpha.files import atomic_directory\n"
        "with atomic_directory(sys.argv[1]) as partial:\n"
        "    (partial / 'half').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.endswith(".partial")
    with atomic_directory(path) as partial:
        (partial / "file").write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_a_replaced_directory_comes_back_after_a_kill_between_the_renames(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import os, socket; print(socket.gethostname(), os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    host, process = finished.stdout.split()
    aside = tmp_path / f".set.{host}.{process}.partial.old"
    aside.mkdir()
    (aside / "file").write_text("old")
    with pytest.raises(ValueError), atomic_directory(tmp_path / "set"):
        raise ValueError
    assert (tmp_path / "set" / "file").read_text() == "old"


LIMITED = """
import resource, signal, sys
from pangu_alpha.files import atomic_write
from pangu_alpha.errors import PanguError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with atomic_write(sys.argv[1]) as file:
        file.write(bytes(100_000))
except PanguError as error:
    sys.exit(str(error))
"""


def test_a_write_beyond_a_limit_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "big")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"cannot write {tmp_path / 'big'}: the file would exceed the size that this process may write (see ulimit -f)"
    ]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """/dev/full is the system's own full disk."""
    path = tmp_path / "file"

    def fill() -> None:
        with atomic_write(path) as file, Path("/dev/full").open("wb", buffering=0) as full:
            file.write(b"some")
            full.write(b"more")

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(PanguError, match=r"^cannot write .*file: no space is left on the disk"):
        fill()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_found_by_a_copy_is_one_line(tmp_path: Path) -> None:
    """Copying names the file it read first, and the disk that is full only second."""
    source = tmp_path / "source"
    source.write_bytes(b"some")
    with pytest.raises(PanguError, match=r"^cannot write .*set: no space is left"), atomic_directory(tmp_path / "set"):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(tmp_path / "elsewhere"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_messages_use_the_final_name(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "set") as partial:
        assert final_name(partial / "part" / "file") == tmp_path / "set" / "part" / "file"
        with pytest.raises(PanguError, match=rf"^cannot write {tmp_path / 'set' / 'file'}: no space"):
            raise storage_error(OSError(errno.ENOSPC, ""), partial / "file")


def test_a_place_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PanguError, match="cannot write"), atomic_write(tmp_path / "file" / "below"):
        pass
    with pytest.raises(PanguError, match="cannot write"), atomic_directory(tmp_path / "file" / "below"):
        pass


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), atomic_write(tmp_path / "file"):
        (tmp_path.parent / "absent").read_text()


def test_reasons() -> None:
    assert "read-only" in str(storage_error(OSError(errno.EROFS, os.strerror(errno.EROFS)), "x"))
    assert str(storage_error(OSError(errno.ELOOP, "Too many links"), "x", "read")) == "cannot read x: Too many links"


def test_directory_that_cannot_be_made_several_levels_up_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with (
        pytest.raises(PanguError, match="cannot write .*a part of its path is a file"),
        atomic_write(tmp_path / "taken" / "a" / "b" / "file.txt"),
    ):
        pass
