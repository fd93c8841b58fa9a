"""Text to typed values: the scalars and lists of a configuration file or of the command line.

The type that a setting wants decides how its text is read, not YAML's guess: `1e-4` is a number, `no` is text
where text is wanted, `true` is never 1, and `010` is ten.
"""

from __future__ import annotations

import math
import re
from typing import Any, get_args, get_origin

import yaml

_WHOLE_NUMBER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?([0-9]+(_[0-9]+)*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LARGEST = 2**63 - 1
_WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_NULL_TAG = "tag:yaml.org,2002:null"


class WrongTypeError(Exception):
    """A value of another type than the setting's: what was `found` and what is `wanted`, both ready to print."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"{found}; allowed: {wanted}")
        self.found, self.wanted = found, wanted


def wanted(kind: Any) -> str:
    """What a setting of type `kind` takes, in words."""
    if get_origin(kind) is tuple:
        return f"a list of {_WANTED[get_args(kind)[0]]}, written [first, second]"
    return _WANTED[kind]


def shown(text: str) -> str:
    """`text` in quotes, cut to what fits in a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def value_of_node(node: yaml.Node, kind: Any) -> Any:
    """The value of a YAML node for a setting of type `kind` (int, float, bool, str, or a tuple of one of them).

    Raises WrongTypeError.
    """
    if get_origin(kind) is tuple:
        if not isinstance(node, yaml.SequenceNode):
            raise WrongTypeError(_describe(node), wanted(kind))
        return tuple(value_of_node(item, get_args(kind)[0]) for item in node.value)
    if not isinstance(node, yaml.ScalarNode):
        raise WrongTypeError(_describe(node), wanted(kind))
    quoted = node.style is not None
    if (kind is str and node.tag == _NULL_TAG) or (kind is not str and quoted):
        raise WrongTypeError(_describe(node), wanted(kind))
    return node.value if kind is str else _scalar(node.value, kind)


def value_of_text(text: str, kind: Any) -> Any:
    """The value of `key=text` on the command line for a setting of type `kind`.

    Text is taken as it stands (quotes around all of it are removed); a list is `[a, b]` or `a,b`, its items with
    or without quotes.  Raises WrongTypeError.
    """
    if get_origin(kind) is tuple:
        item_kind = get_args(kind)[0]
        return tuple(value_of_text(item, item_kind) for item in _split_list(text, wanted(kind)))
    if kind is not str:
        return _scalar(text.strip(), kind)
    if len(text) >= 2 and text[0] in "'\"" and text[-1] == text[0]:
        node = _compose_or_none(text)
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
    return text


def _scalar(text: str, kind: Any) -> int | float | bool:
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is int and _WHOLE_NUMBER.fullmatch(text):
        if len(text) > 40 or abs(int(text)) > _LARGEST:
            raise WrongTypeError(shown(text), f"a whole number up to {_LARGEST}")
        return int(text)
    if kind is float and _NUMBER.fullmatch(text):
        if not math.isfinite(float(text)):
            raise WrongTypeError(shown(text), "a finite number")
        return float(text)
    raise WrongTypeError(shown(text) if text else "empty", wanted(kind))


def _split_list(text: str, wanted_words: str) -> list[str]:
    inner = text.strip()
    if inner.startswith("["):
        if not inner.endswith("]"):
            raise WrongTypeError(shown(text), wanted_words)
        inner = inner[1:-1]
    node = _compose_or_none(f"[{inner}]")
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [item.value for item in node.value]
    # Not YAML, as with *.txt, which would be an alias, or "C: now", which would be a mapping.
    items = [item.strip() for item in inner.split(",")]
    if any(item[:1] in ("'", '"', "[", "") for item in items):
        raise WrongTypeError(shown(text), wanted_words)
    return items


def _compose_or_none(text: str) -> yaml.Node | None:
    if text.count("[") + text.count("{") > 100:
        return None  # nothing that a list of words needs, and each level would take a level of the stack
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError):
        return None


def _describe(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a list" if isinstance(node, yaml.SequenceNode) else "a section with keys of its own"
    if node.tag == _NULL_TAG:
        return "empty"
    return f"{shown(node.value)} in quotes" if node.style is not None else shown(node.value)
