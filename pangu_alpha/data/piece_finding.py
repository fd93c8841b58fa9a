"""Sentencepiece's training in a process of its own: it answers no Ctrl-C until it is done, a process can be ended.

Run as a module, it is that process: settings and the number of lines as JSON in the first line of the standard input,
then the lines; the model, or sentencepiece's complaint, on the standard output.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.errors import PanguError

_REFUSED = 3
"""Exit code with a complaint in place of a model."""


class SentencePieceError(Exception):
    """Sentencepiece cannot make a model of these lines; its own words."""


def find_pieces(lines: Sequence[str], settings: Mapping[str, Any]) -> bytes:
    """The bytes of a sentencepiece model.

    Args:
        lines: of words with a space between, without line ends.
        settings: of `SentencePieceTrainer.train`.

    Raises:
        SentencePieceError: the lines and the settings do not fit together.
        PanguError: the process ended early.
    """
    from pangu_alpha.data.worker_pool import interrupts_held

    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    with interrupts_held():  # the process inherits it
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
    with process:
        try:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:  # its end says more
                process.stdin.write(json.dumps([settings, len(lines)]).encode() + b"\n")
                process.stdin.writelines(f"{line}\n".encode() for line in lines)
            answer = process.stdout.read()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code == _REFUSED:
        raise SentencePieceError(answer.decode())
    if code:
        raise PanguError(
            f"the process that trains the vocabulary ended early (exit code {code}), perhaps for lack of memory; "
            "try less text with tokenizer.train_characters"
        )
    return answer


def _main() -> int:
    """Be the process."""
    import sentencepiece

    settings, count = json.loads(sys.stdin.buffer.readline())
    lines = io.TextIOWrapper(sys.stdin.buffer, "utf-8", newline="\n")
    model = io.BytesIO()
    read = 0

    def given() -> Any:
        nonlocal read
        for read, line in enumerate(lines, 1):  # noqa: B007 (what was read is compared below)
            yield line.removesuffix("\n")
        if read < count:
            os._exit(1)  # whoever asked has ended

    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=given(), model_writer=model, **settings)
        code, answer = 0, model.getvalue()
    except RuntimeError as error:
        code, answer = _REFUSED, str(error).encode()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    return code


if __name__ == "__main__":
    sys.exit(_main())
