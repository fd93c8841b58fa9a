"""The stubs are derived from the installed MindSpore, built once, and good for loading its compilers."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.rehearsal.driver_stubs import TARGETS, build, plugin, stub_environment
from pangu_alpha.rehearsal.driver_stubs.elf import read_shared_library

MINDSPORE = {"ascend": "Ascend", "gpu": "GPU"}

LOAD = """
import sys
from mindspore import communication, context
from mindspore._c_expression import ms_ctx_param
context._context().set_param(ms_ctx_param.device_target, sys.argv[1])
communication.init()
print(communication.get_rank(), communication.get_group_size())
"""


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pangu_alpha" / "driver_stubs"


@pytest.mark.parametrize("target", TARGETS)
def test_stubs_load_the_compiler_and_its_dummy_collectives(target, own_cache):
    environment = {**os.environ, **stub_environment(target), "RANK_ID": "5", "PMIX_RANK": "5", "RANK_SIZE": "8"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, MINDSPORE[target]], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["5", "8"], done.stderr
    assert [folder.name.split("-")[0] for folder in own_cache.iterdir()] == [target]


def test_a_library_is_read_as_the_linker_reads_it(tmp_path):
    source = tmp_path / "face.c"
    source.write_text(
        "extern int outside_variable; int outside(void); __attribute__((weak)) int maybe(void);\n"
        "static int inner(void) { return outside() + outside_variable; }\n"
        "int given = 3; int face(void) { return inner() + (maybe ? maybe() : 0); }\n"
    )
    helper = tmp_path / "outside.c"
    helper.write_text("int outside_variable = 1; int outside(void) { return 1; }\n")
    compiler = [*build.find_compiler(), "-shared", "-fPIC"]
    library = tmp_path / "libface.so"
    other = tmp_path / "liboutside.so.1"
    subprocess.run([*compiler, "-Wl,-soname,liboutside.so.1", "-o", other, helper], check=True)
    subprocess.run([*compiler, "-o", library, source, other], check=True)
    face = read_shared_library(library)
    assert "liboutside.so.1" in face.needed
    assert {"given", "face"} <= face.defined
    assert not face.defined & {"inner", "outside", "maybe"}
    assert {"outside", "outside_variable"} <= face.wanted
    assert "maybe" not in face.wanted
    assert face.wanted_data == {"outside_variable"}


def test_what_is_no_library_is_one_line(tmp_path):
    for content in (b"", b"\x7fELF\x02\x01", b"text" * 100, b"\x7fELF\x02\x01" + bytes(34) + b"\xff" * 30):
        path = tmp_path / "broken.so"
        path.write_bytes(content)
        with pytest.raises(PanguError, match=r"broken\.so is no 64-bit Linux library"):
            read_shared_library(path)


def test_every_symbol_that_the_plugin_lacks_is_in_the_stubs(own_cache):
    found = plugin.find_plugin("ascend")
    interface = plugin.driver_interface(found)
    assert "libascendcl.so" in interface.sonames
    assert "rtKernelLaunch" in interface.functions
    assert not {"malloc", "PyList_New", "_Znwm"} & set(interface.functions)
    libraries = build.library_folder(build.built_stubs(found), "ascend")
    assert set(interface.sonames) <= {path.name for path in libraries.iterdir()}
    main = read_shared_library(libraries / "libpangu_driver_stub.so")
    assert set(interface.functions) | set(interface.variables) <= main.defined


def test_names_that_c_would_not_take_and_variables_are_built(tmp_path):
    interface = plugin.DriverInterface(("libone.so.1",), ("int", "malloc_", "_Z3foov"), ("table",))
    build._build_libraries(build.find_compiler(), interface, tmp_path, 100)
    assert {"int", "malloc_", "_Z3foov", "table"} <= read_shared_library(tmp_path / "libpangu_driver_stub.so").defined
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1])['int']())"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "libone.so.1"], capture_output=True, text=True)
    assert done.stdout.strip() == "100"


def test_the_cache_serves_until_mindspore_changes_or_a_file_is_lost(own_cache, monkeypatch):
    found = plugin.find_plugin("gpu")
    first = build.built_stubs(found)
    monkeypatch.setattr(build, "find_compiler", lambda: pytest.fail("built again"))
    assert build.built_stubs(found) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache.parent.parent))
    upgraded = dataclasses.replace(found, version="2.11.0", identity=found.identity + "another file")
    second = build.built_stubs(upgraded)
    assert second != first
    assert "2.11.0" in second.name
    same_version = build.built_stubs(dataclasses.replace(found, identity=found.identity + "patched"))
    assert same_version not in (first, second)
    lost = build.library_folder(first, "gpu") / "libcuda.so.1"
    lost.unlink()
    assert build.built_stubs(found) == first
    assert lost.stat().st_size == json.loads((first / build.MANIFEST).read_text())["files"]["cuda/lib64/libcuda.so.1"]
    assert not [path for path in own_cache.iterdir() if path.name.startswith(".")]


def test_no_compiler_and_a_broken_one_are_one_line(own_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(PanguError, match=r"no C compiler found .* install one"):
        stub_environment("gpu")
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'cc1: error: out of cheese' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(PanguError, match=r"compiler cc could not .* out of cheese"):
        stub_environment("gpu")
    assert not own_cache.exists() or not list(own_cache.iterdir())


def test_machines_and_wheels_without_the_plugin_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no target 'tpu'; allowed: ascend, gpu"):
        stub_environment("tpu")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(PanguError, match="GPU compiler exists for x86-64 only, and this machine is aarch64"):
        stub_environment("gpu")
    monkeypatch.undo()
    package = tmp_path / "mindspore"
    (package / "lib" / "plugin").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: _Spec(str(package / "__init__.py")))
    with pytest.raises(PanguError, match=r"has no ascend plug-in"):
        stub_environment("ascend")
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PanguError, match="MindSpore is not installed"):
        stub_environment("ascend")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PanguError, match="for Linux only, and this is darwin"):
        stub_environment("ascend")


@dataclasses.dataclass
class _Spec:
    origin: str


def test_paths_of_the_user_stay_behind_the_stubs(own_cache, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/own")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    environment = stub_environment("ascend")
    paths = environment["LD_LIBRARY_PATH"].split(":")
    assert paths[-1] == "/usr/local/own"
    assert Path(paths[0]).parts[-2:] == ("cann", "lib64")
    assert environment["PYTHONPATH"].endswith(":/somewhere")
