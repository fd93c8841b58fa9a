"""What the nodes of a graph pass to each other besides tensors, numbers and tuples."""

from __future__ import annotations

from typing import Any

from pangu_alpha.rehearsal.mindir import Function


class Future:
    """The result of a communication operator that may not be there yet.

    Attributes:
        done: whether it is there.
        value: the tensor, once done.
        call: what is waited for, a `communication.Call`.
    """

    __slots__ = ("call", "done", "value")

    def __init__(self, call: Any) -> None:
        self.done = False
        self.value: Any = None
        self.call = call

    def complete(self, value: Any) -> None:
        """Let those who wait go on with `value`."""
        self.done, self.value = True, value


class Closure:
    """A function with its first arguments."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Function, arguments: tuple[Any, ...] = ()) -> None:
        self.function, self.arguments = function, arguments


class Reference:
    """A parameter as a place that operators may write to.

    Attributes:
        name: of the parameter.
        value: the tensor that a Load found there; None before a Load, for whatever is there when it is read.
    """

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: Any = None) -> None:
        self.name, self.value = name, value
