"""Why a rank did not compile, as one line, out of MindSpore's pages."""

from __future__ import annotations

import os
import re
import signal

from pangu_alpha.errors import PanguError

LONGEST = 300

# MindSpore misses parts of CANN that only running would need, and says so at each start.
_SPOKEN = re.compile(r"\[(?:ERROR|CRITICAL|EXCEPTION)\] (?!ME\()\w+\([^)]*\):\S+ \[[^\]]*\](?: ?\w+\])? ?(.*)")
_UNCAUGHT = re.compile(r"terminate called|what\(\):|Fatal Python error|Killed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    return isinstance(error, MemoryError) or bool(re.search(r"bad_alloc|[Cc]annot allocate memory", str(error)))


def condense(error: BaseException) -> str:
    """The cause within MindSpore's page-long messages, as one line."""
    # What follows are call stacks of its C++ and of the graph that it compiles.
    text = re.split(r"\n\s*-{10,}|\n# \d+ In file|The function call stack", str(error), maxsplit=1)[0]
    line = " ".join(text.split()) or type(error).__name__
    if not isinstance(error, (RuntimeError, PanguError)):
        line = f"{type(error).__name__}: {line}"
    return _shortened(line)


def explain(who: str, code: int, error: dict[str, str] | None, log: str, log_file: str) -> PanguError:
    """The error of a worker that failed.

    Args:
        who: the rank, in words.
        code: exit code of its process, negative for a signal.
        error: what it wrote down itself (`kind`: user, memory or compile, and the `cause`), if it could.
        log: all that it said.
        log_file: where that can be read.
    """
    if error is not None and error["kind"] == "user":
        return PanguError(error["cause"])
    where = f"all that MindSpore said: {log_file}"
    ended = code == -signal.SIGKILL
    if ended or (error is not None and error["kind"] == "memory") or (code < 0 and "bad_alloc" in log):
        how = "the system ended its process" if ended else "it could get no more"
        return PanguError(
            f"{who}: compiling ran out of memory ({how}; this machine has {_machine_gib():.0f} GiB); "
            f"compile one rank at a time (--at-once 1), end other programs, or take a machine with more; {where}"
        )
    detail = _first_spoken(log)
    if error is None:
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = [line.strip() for line in log.splitlines() if _UNCAUGHT.search(line)]
        detail = detail or (_shortened(last[-1]) if last else "")
        text = f"the compiler ended with {cause}" + (f", after: {detail}" if detail else "")
    else:
        text = error["cause"] + (f" ({detail})" if detail and detail not in error["cause"] else "")
        place = re.search(r"In file (\S+?):(\d+)", log)
        text += f", at {place[1]}:{place[2]}" if place else ""
    return PanguError(f"{who} does not compile: {text}; {where}")


def _first_spoken(log: str) -> str:
    """The first thing that MindSpore's C++ complained of: what comes after it follows from it."""
    match = _SPOKEN.search(log)
    return _shortened(match[1].strip()) if match else ""


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST else line[:LONGEST].rsplit(" ", 1)[0] + " …"


def _machine_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
