"""Rules for values that come from outside: what a key may hold, as a test and in words.

Settings arrive as the JSON object of a layer's `param_str` (`parse_object`, then `check`) or one by
one from the command line; either way the table of rules is the only place that says what is
allowed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.suggest import nearest

LONGEST_SHOWN = 120


@dataclass(frozen=True)
class Rule:
    """What a value may be: a test, and the words that complete "it must be …"."""

    allows: Callable[[Any], bool]
    words: str


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number of at least `low`, and at most `high` if that is given."""
    words = f", at least {low}" if high is None else f" from {low:,} to {high:,}"
    return Rule(
        lambda value: type(value) is int and low <= value and (high is None or value <= high),
        f"a whole number{words}",
    )


def number(low: float, high: float | None = None) -> Rule:
    """A finite number of at least `low`, and at most `high` if that is given."""
    words = f", at least {low:g}" if high is None else f" from {low:g} to {high:g}"
    return Rule(
        lambda value: is_number(value) and low <= value and (high is None or value <= high),
        f"a number{words}",
    )


def interval(low: float, high: float) -> Rule:
    """Two numbers in order, both between `low` and `high`."""
    return Rule(
        lambda value: is_list(value, is_number, 2) and low <= value[0] <= value[1] <= high,
        f"[low, high] with {low} ≤ low ≤ high ≤ {high}",
    )


def list_of(test: Callable[[Any], bool], words: str, length: int | None = None) -> Rule:
    """A list of `length` entries, or of any number but none, that all pass the test."""
    return Rule(lambda value: is_list(value, test, length) and len(value) > 0, words)


def one_of(*choices: str | int) -> Rule:
    """One of these values."""
    *others, last = map(str, choices)
    return Rule(
        lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
        f"{', '.join(others)} or {last}" if others else last,
    )


TRUTH = Rule(lambda value: type(value) is bool, "true or false")
TEXT = Rule(lambda value: type(value) is str, "text")


def is_number(value: object) -> bool:
    """Whether a value is a finite number that a float can hold; true and false are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # 10^400 as a whole number
        return False


def is_list(value: object, test: Callable[[Any], bool], length: int | None = None) -> bool:
    """Whether a value is a list, of `length` entries if that is given, that all pass the test."""
    return (
        isinstance(value, list | tuple)
        and length in (None, len(value))
        and all(test(entry) for entry in value)
    )


def shown(value: object) -> str:
    """A value from JSON as a message shows it: on one line, cut where it becomes long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):  # a number, or nested lists, that only a parser can make
        return "too large to be shown"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def parse_object(where: str, text: str, example: str, what: str = "param_str") -> dict[str, Any]:
    """Return the JSON object in a layer's `param_str`; empty text is an object without keys.

    where: the layer, which begins every message. example: an object to show in them. what: the
    text in their words.
    Raises InputError for other text, and for a key that is given twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        given = dict(pairs)
        if len(given) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{where}: {what} gives {_cut(twice)} twice; give every key once")
        return given

    try:
        given = json.loads(text or "{}", object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: {what} is not JSON ({error}); write an object such as {example}"
        ) from error
    if not isinstance(given, dict):
        raise InputError(
            f"{where}: {what} is {_cut(text)}; it must be a JSON object such as {example}"
        )
    return given


def check(
    where: str, given: Mapping[str, Any], rules: Mapping[str, Rule], required: Iterable[str] = ()
) -> None:
    """Refuse unknown keys, values that break their rule, and missing keys, each in one sentence.

    where: what the keys belong to, which begins every message.
    """
    for key, value in given.items():
        if key not in rules:
            raise InputError(f"{where}: unknown key {_cut(key)}; {nearest(key, rules)}")
        if not rules[key].allows(value):
            raise InputError(f"{where}: {key} is {shown(value)}; it must be {rules[key].words}")
    for key in required:
        if key not in given:
            raise InputError(f"{where}: {key} is missing; it must be {rules[key].words}")
