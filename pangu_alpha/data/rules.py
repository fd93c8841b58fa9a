"""All rules by name, and from a recipe's settings to a rule."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pangu_alpha.config_checks import InvalidValue
from pangu_alpha.data.cleaning.advertisements import Advertisements
from pangu_alpha.data.cleaning.chinese_share import ChineseShare
from pangu_alpha.data.cleaning.length import Length
from pangu_alpha.data.cleaning.mojibake import Mojibake
from pangu_alpha.data.cleaning.navigation import Navigation
from pangu_alpha.data.cleaning.normalise import Normalise
from pangu_alpha.data.cleaning.repeated_paragraphs import RepeatedParagraphs
from pangu_alpha.data.cleaning.special_symbols import SpecialSymbols
from pangu_alpha.data.cleaning.title_only import TitleOnly
from pangu_alpha.data.cleaning.traditional_to_simplified import TraditionalToSimplified
from pangu_alpha.data.filters.repetition import Repetition
from pangu_alpha.data.filters.sensitive_words import SensitiveWords
from pangu_alpha.data.privacy.personal_data import PersonalData
from pangu_alpha.data.rule import Rule
from pangu_alpha.errors import UsageError

RULES: dict[str, type] = {
    rule.name: rule
    for rule in (
        TraditionalToSimplified,
        Normalise,
        Mojibake,
        Navigation,
        Advertisements,
        SpecialSymbols,
        TitleOnly,
        ChineseShare,
        RepeatedParagraphs,
        Length,
        PersonalData,
        Repetition,
        SensitiveWords,
    )
}
"""Name in recipes -> class, whose fields are the settings."""


def build_rule(name: str, settings: Mapping[str, Any], place: str) -> Rule:
    """The rule of a recipe's entry.

    Args:
        name: of the rule.
        settings: its fields that differ from their defaults.
        place: file and line, for messages.

    Raises:
        UsageError: there is no such rule or setting, or a threshold is impossible.
    """
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, 1)
        nearest = f"nearest: {near[0]}; " if near else ""
        raise UsageError(f"{place}: there is no rule {name!r}; {nearest}allowed: {', '.join(RULES)}")
    kind = RULES[name]
    hints, known = get_type_hints(kind), [field.name for field in fields(kind)]
    for key, value in settings.items():
        if key not in known:
            raise UsageError(
                f"{place}: rule {name} has no setting {key!r}; allowed: {', '.join(known) or 'none'}, and sources"
            )
        if not _fits(value, hints[key]):
            raise UsageError(f"{place}: {name}.{key} is {value!r}; allowed: {_words(hints[key])}")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    given.update({key: float(given[key]) for key in given if hints[key] is float})
    try:
        rule: Rule = kind(**given)
    except InvalidValue as error:
        raise UsageError(f"{place}: {name}.{error}") from None
    return rule


def _fits(value: Any, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float))
    if kind in (int, str):
        return isinstance(value, kind)
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _words(kind: Any) -> str:
    return {bool: "true or false", float: "a number", int: "a whole number", str: "text"}.get(kind, "a list of words")
