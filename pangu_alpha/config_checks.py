"""What the sections of a configuration, and the options of a request, check their values with."""

from __future__ import annotations

import numbers

from pangu_alpha.errors import UsageError


class InvalidValue(UsageError):
    """A value that its dataclass or request refuses: its `key`, the `value`, and what is `allowed`."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key} is {value!r}; {allowed}")
        self.key, self.value, self.allowed = key, value, allowed


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise InvalidValue unless `condition` holds."""
    if not condition:
        raise InvalidValue(key, value, allowed)


def require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InvalidValue unless `value` is one of `choices`."""
    require(value in choices, key, value, f"allowed: {', '.join(choices)}")


def require_share(key: str, value: float, upper_open: bool = False) -> None:
    """Raise InvalidValue unless `value` lies in [0, 1], or [0, 1) with `upper_open`."""
    inside = 0.0 <= value < 1.0 if upper_open else 0.0 <= value <= 1.0
    require(inside, key, value, "it must lie in [0, 1)" if upper_open else "it must lie in [0, 1]")


def require_integer(key: str, value: object, least: int | None = None) -> None:
    """Raise InvalidValue unless `value` is an integer, Python's or numpy's and no bool, of at least `least`."""
    right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    allowed = "it must be an integer" + ("" if least is None else f" of at least {least}")
    require(right and (least is None or value >= least), key, value, allowed)  # type: ignore[operator]


def is_number(value: object) -> bool:
    """Whether `value` is a real number, Python's or numpy's and no bool; infinity and NaN are."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def require_text(key: str, value: object) -> None:
    """Raise UsageError unless `value` is a text that can be written as UTF-8."""
    require(isinstance(value, str), key, value, "it must be a text (str)")
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError as error:
        # What Python makes of a byte that it could not read: half a surrogate pair.
        raise UsageError(
            f"{key} is not UTF-8: its character {error.start + 1} is {str(value)[error.start]!r}, a byte that could "
            "not be read; give UTF-8, in a locale that reads it (LANG=C.UTF-8)"
        ) from None
