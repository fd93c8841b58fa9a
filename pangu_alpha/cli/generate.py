"""`pangu-alpha generate`: continue a prompt, a file or what is typed; or fill [MASK] inside a text."""

from __future__ import annotations

import argparse
import contextlib
import logging
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cli.common import format_table
from pangu_alpha.config_checks import require_text
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.interrupts import unbroken_import

if TYPE_CHECKING:
    from pangu_alpha.inference.language_model import PanguAlpha

logger = logging.getLogger(__name__)

EXAMPLES = """
pangu-alpha generate '今天是'
pangu-alpha generate --checkpoint runs/quickstart-1a2b3c4d --greedy --max-new-tokens 50 '今天是'
pangu-alpha generate --infill '今天[MASK]天气'
pangu-alpha generate --infill '今天的[MASK]天气很好' --length 1..4
pangu-alpha generate --file beginning.txt --seed 7 > whole.txt
pangu-alpha generate        (asks for one prompt after the other)
"""

MARKER = "› "
FILLING = {"length": "1", "candidates": 5}
"""Options of --infill alone, and what they are where they are not given."""
CONTINUING = {
    "max_new_tokens": 100,
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 0.9,
    "greedy": False,
    "seed": None,
    "stop": (),
}
"""Options of a text that is continued."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    parser.add_argument("prompt", nargs="?", help="text to continue; without it or --file, prompts are asked for")
    parser.add_argument("--file", metavar="F", help="continue the text in this file (- is the standard input)")
    parser.add_argument("--infill", metavar="TEXT", help="fill each [MASK] in this text, given both sides")
    parser.add_argument("--length", metavar="N..M", help="with --infill: tokens tried for [MASK], such as 1..4")
    parser.add_argument("--candidates", type=int, metavar="N", help="with --infill: rows of the table (default: 5)")
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="a run or one of its checkpoints (default: the newest run below runs/)"
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens (default: 100)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (default: 0.8)")
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K most probable tokens (0: all)")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="the fewest tokens that sum to P (1: all; default: 0.9)"
    )
    parser.add_argument("--greedy", action="store_true", default=None, help="always the most probable token")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text (default: drawn anew)")
    parser.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be given several times"
    )
    parser.add_argument("--no-cache", action="store_true", help="compute every token from the whole text (slow)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu", "ascend"), default="auto", help="where to compute (default: auto)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Load the model, then write."""
    _check(arguments)
    text = None
    if arguments.file is not None:
        text = _read(arguments.file)
    model = _load(arguments)
    if arguments.infill is not None:
        return _infill(model, arguments)
    if text is None and arguments.prompt is not None:
        text = arguments.prompt
    if text is not None:
        sys.stdout.write(text)
        _continue(model, text, arguments, arguments.seed)
        return 0
    return _ask(model, arguments)


def _check(arguments: argparse.Namespace) -> None:
    """What is wrong with the words is said before a model is loaded."""
    given = [name for name in ("prompt", "file", "infill") if getattr(arguments, name) is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} were given; give a prompt, or --file F, or --infill TEXT")
    filling = arguments.infill is not None
    for name in CONTINUING if filling else FILLING:
        if getattr(arguments, name) is not None:
            mend = "a text that is continued; leave it out, or leave out --infill" if filling else "--infill TEXT"
            raise UsageError(f"--{name.replace('_', '-')} belongs to {mend}")
    if arguments.greedy and arguments.temperature:
        raise UsageError(f"--greedy and --temperature {arguments.temperature:g} were given; give one of them")
    for name in ("prompt", "infill"):
        if getattr(arguments, name) is not None:
            require_text(name, getattr(arguments, name))
    for name, default in {**FILLING, **CONTINUING}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if arguments.infill is not None and "[MASK]" not in arguments.infill:
        raise UsageError("--infill needs a [MASK] in its text, as in --infill '今天[MASK]天气'")
    if arguments.greedy:
        arguments.temperature = 0.0
    if arguments.seed is None:
        arguments.seed = secrets.randbits(32)
    for name in ("max_new_tokens", "candidates"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be at least 1")


def _load(arguments: argparse.Namespace) -> PanguAlpha:
    from pangu_alpha.inference.generator import GenerationOptions
    from pangu_alpha.inference.infill import parse_lengths
    from pangu_alpha.inference.sampling import Sampling

    GenerationOptions(
        arguments.max_new_tokens,
        Sampling(arguments.temperature, arguments.top_k, arguments.top_p),
        arguments.seed,
        tuple(arguments.stop),
    )
    arguments.length = parse_lengths(arguments.length)
    from pangu_alpha.checkpoint.run_directory import find_checkpoint

    find_checkpoint(arguments.checkpoint, wanted=lambda name: False)  # before MindSpore's seconds of starting
    with unbroken_import():
        from pangu_alpha.inference.language_model import PanguAlpha

    model = PanguAlpha.load(arguments.checkpoint, arguments.device)
    seed = f", seed {arguments.seed}" if arguments.infill is None else ""
    logger.info("%s on %s%s", model.checkpoint.directory, model.device, seed)
    return model


def _read(name: str) -> str:
    """The text of a file or of the standard input, without the line end that editors add."""
    from pangu_alpha.files import storage_error

    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise storage_error(error, name, "read") from None
    text = _decode(content, name)
    if not text.strip():
        raise PanguError(f"{name} holds no text; write the beginning that is to be continued")
    return text.removesuffix("\n").removesuffix("\r")


def _decode(content: bytes, name: str, line: int = 0) -> str:
    """What bytes say in UTF-8, without a byte order mark; `line` is their number where they are a line of `name`."""
    from pangu_alpha.data.readers.encoding import guess_encoding

    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        guess = guess_encoding(content)
        mend = "mend it, or convert the text" if line else "is it a text?"
        if guess and not (line > 1 and guess == "utf-16"):  # a byte order mark begins a text, and no later line
            mend = f"it looks like {guess.upper()}: iconv -f {guess} -t utf-8 converts it"
        place = f"line {line} of {name}" if line else name
        raise PanguError(f"{place} is not UTF-8, as a text must be; {mend}") from None


def _continue(model: PanguAlpha, prompt: str, arguments: argparse.Namespace, seed: int) -> None:
    """Write the continuation of `prompt` as it comes."""
    stream = model.stream(
        prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=seed,
        stop=arguments.stop,
        use_cache=not arguments.no_cache,
    )
    sys.stdout.flush()
    try:
        for piece in stream:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()


def _ask(model: PanguAlpha, arguments: argparse.Namespace) -> int:
    """One prompt after the other, typed or piped in line by line."""
    typed = sys.stdin.isatty()
    if typed:
        logger.info("type a beginning; Ctrl-C stops a text, Ctrl-D ends")
    for number, prompt in enumerate(_typed_prompts() if typed else _piped_prompts()):
        if not typed:
            sys.stdout.write(prompt)
        try:
            _continue(model, prompt, arguments, arguments.seed + number)
        except KeyboardInterrupt:
            if not typed:
                raise
    return 0


def _piped_prompts() -> Iterator[str]:
    """Lines of the standard input that hold anything, in UTF-8 whatever the locale."""
    for number, content in enumerate(sys.stdin.buffer, 1):
        line = _decode(content.rstrip(b"\r\n"), "the standard input", number)
        if line.strip():
            yield line


def _typed_prompts() -> Iterator[str]:
    """Lines that hold anything, as the terminal's locale has them, until the input ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (arrow keys in input())
    while True:
        try:
            line = input(MARKER)
            require_text("what was typed", line)
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            continue
        except UnicodeDecodeError:
            raise PanguError(
                f"what was typed is not {sys.stdin.encoding}; set LANG to the terminal's encoding"
            ) from None
        if line.strip():
            yield line


def _infill(model: PanguAlpha, arguments: argparse.Namespace) -> int:
    """Print the table of candidates."""
    if model.config.data.order == "sequential":
        logger.warning("this model was trained in sequential order alone: it has hardly learnt to use the right side")
    found = model.infill(arguments.infill, arguments.length, arguments.candidates, not arguments.no_cache)
    ranked = len(arguments.length) > 1
    header = ["rank", "probability", "mean a token", "tokens", "fill", "text"]
    rows = [
        [
            str(rank),
            f"{filling.probability:.4f}",
            f"{filling.mean_token_probability:.4f}",
            str(filling.length),
            " ".join(repr(fill)[1:-1] for fill in filling.fills),
            repr(filling.text)[1:-1],
        ]
        for rank, filling in enumerate(found, 1)
    ]
    print(format_table(header, rows, right=(0, 1, 2, 3)))
    if ranked:
        print(
            f"\nprobability: of length and fill, given both sides, among lengths {arguments.length[0]} to "
            f"{arguments.length[-1]}"
        )
    return 0
