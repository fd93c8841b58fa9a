"""What the sections of a configuration check their values with."""

from __future__ import annotations

from pangu_alpha.errors import UsageError


class InvalidValue(UsageError):
    """A value that its dataclass refuses: `key` within the section, the `value`, and what is `allowed`."""

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
