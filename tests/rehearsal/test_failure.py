"""MindSpore's pages become one line that names the cause."""

from __future__ import annotations

import signal

from pangu_alpha.rehearsal.failure import condense, explain, is_out_of_memory

LOG = """\
[ERROR] ME(29:140,MainProcess):2026-11-25-03:12:10.180.00 [mindspore/_check_version.py:350] No module named 'te'
[ERROR] PARALLEL(29,7f,python):2026-11-25-03:12:11.554.148 [mindspore/ops_info/operator_info.cc:248] CheckStrategy] \
GeLUInfo22: shape value 8 cannot be divisible by 3
[ERROR] PARALLEL(29,7f,python):2026-11-25-03:12:11.554.183 [mindspore/ops_info/operator_info.cc:1457] Init] failed.
RuntimeError: Failure:operator GeLU init failed
In file /home/user/model.py:41, 49~90/        return self.activation(x)/
"""


def test_pages_are_condensed():
    page = RuntimeError(
        "The strategy is ((3, 1)), the value of strategy can't be divided by shape.\n\n"
        + "-" * 52 + "\n- C++ Call Stack: (For framework developers)\n" + "-" * 52 + "\nstrategy.cc:12 Init\n"
    )  # fmt: skip
    assert condense(page) == "The strategy is ((3, 1)), the value of strategy can't be divided by shape."
    assert condense(KeyError("self")) == "KeyError: 'self'"
    assert condense(RuntimeError("")) == "RuntimeError"
    assert len(condense(RuntimeError("word " * 1000))) < 310


def test_the_first_complaint_and_the_place_are_told_but_not_the_noise():
    error = {"kind": "compile", "cause": "Failure:operator GeLU init failed"}
    assert str(explain("rank 3", 1, error, LOG, "log.txt")) == (
        "rank 3 does not compile: Failure:operator GeLU init failed (GeLUInfo22: shape value 8 cannot be divisible by "
        "3), at /home/user/model.py:41; all that MindSpore said: log.txt"
    )


def test_the_end_of_a_process_is_told():
    text = str(explain("rank 3", -signal.SIGSEGV, None, LOG.splitlines()[0], "log.txt"))
    assert text == "rank 3 does not compile: the compiler ended with signal SIGSEGV; all that MindSpore said: log.txt"
    thrown = "terminate called after throwing an instance of 'std::logic_error'\n  what():  odd\n"
    assert "SIGABRT, after: what():  odd" not in str(explain("rank 3", -signal.SIGABRT, None, thrown, "log.txt"))
    assert "SIGABRT, after: what(): odd" in str(explain("rank 3", -signal.SIGABRT, None, thrown, "log.txt"))


def test_memory():
    bad_alloc = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    for code, error, log in [
        (-signal.SIGKILL, None, ""),
        (-signal.SIGABRT, None, bad_alloc),
        (1, {"kind": "memory", "cause": "x"}, ""),
    ]:
        assert "rank 3: compiling ran out of memory" in str(explain("rank 3", code, error, log, "log.txt"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeError("memory of the device"))


def test_what_its_user_did_wrong_is_told_as_it_is():
    error = {"kind": "user", "cause": "parallel.model_parallel is 3; it must divide model.num_heads 32"}
    assert str(explain("rank 3", 1, error, LOG, "log.txt")) == error["cause"]
