"""The rules of settings: what passes, what is refused, and in which words."""

from __future__ import annotations

import math

import pytest

from lglstm.common.errors import InputError
from lglstm.common.rules import (
    TEXT,
    TRUTH,
    check,
    interval,
    list_of,
    number,
    one_of,
    parse_object,
    whole,
)

SIDES = list_of(whole(1).allows, "[height, width]", length=2)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (whole(1), [1, 10**9], [0, -1, 1.0, True, "1", None]),
        (whole(0, 255), [0, 255], [256, -1, 0.5]),
        (number(0), [0, 0.0, 1e9], [-1e-9, math.nan, math.inf, True, "1"]),
        (interval(0, 1), [[0, 1], [0.5, 0.5], (0, 0.1)], [[1, 0], [0, 1.1], [0], [0, "1"], 0.5]),
        (one_of(2, 4, 8), [2, 4, 8], [3, 2.0, "2", [2], None]),
        (one_of("a", "b"), ["a", "b"], ["", "c", 0, ["a"]]),
        (SIDES, [[1, 2], (3, 4)], [[1], [1, 2, 3], [0, 1], "ab", []]),
        (list_of(whole(1).allows, "numbers"), [[1], [1, 2, 3]], [[], [0], "1"]),
        (TRUTH, [True, False], [0, 1, "true", None]),
        (TEXT, ["", "a"], [0, None, ["a"]]),
    ],
)
def test_rules_tell_good_from_bad(rule, good, bad):
    assert [value for value in good if not rule.allows(value)] == []
    assert [value for value in bad if rule.allows(value)] == []


def test_words_complete_a_sentence():
    assert whole(1).words == "a whole number, at least 1"
    assert whole(1, 65_536).words == "a whole number from 1 to 65,536"
    assert number(0).words == "a number, at least 0"
    assert one_of(2, 4, 8).words == "2, 4 or 8" and one_of("a").words == "a"
    assert interval(0.1, 1).words == "[low, high] with 0.1 ≤ low ≤ high ≤ 1"


def test_check_names_the_place_the_key_the_value_and_the_rule():
    rules = {"size": whole(1), "sort": one_of("a", "b")}
    check("here", {"size": 3}, rules, required=["size"])
    for given, message in (
        ({"sice": 1}, "here: unknown key sice; did you mean size"),
        ({"zzz": 1}, "here: unknown key zzz; choose one of size, sort"),
        ({"size": True}, "here: size is true; it must be a whole number, at least 1"),
        ({"size": 1, "sort": "ä"}, 'here: sort is "ä"; it must be a or b'),
        ({"sort": "a"}, "here: size is missing; it must be a whole number, at least 1"),
    ):
        with pytest.raises(InputError) as error:
            check("here", given, rules, required=["size"])
        assert str(error.value) == message


def test_objects_are_read_from_json_and_nothing_else():
    assert parse_object("here", "", "{}") == {}
    assert parse_object("here", '{"a": {"b": [1]}}', "{}") == {"a": {"b": [1]}}
    for text, message in (
        ("{", "here: param_str is not JSON"),
        ("[1]", "here: param_str is [1]; it must be a JSON object such as {}"),
        ("[" * 100_000, "here: param_str is not JSON"),
        ('{"a": 1, "b": 2, "a": 1}', "here: param_str gives a twice; give every key once"),
        ('{"a": {"b": 1, "b": 2}}', "here: param_str gives b twice; give every key once"),
    ):
        with pytest.raises(InputError) as error:
            parse_object("here", text, "{}")
        assert str(error.value).startswith(message)


def test_values_that_only_a_parser_can_make():
    """They are refused in a short sentence, whatever their size and depth."""
    rules = {"size": whole(1, 9), "part": number(0), "range": interval(0, 1), "sides": SIDES}
    deep = "[" * 900 + "]" * 900
    for text in (
        '{"size": 1' + "0" * 400 + "}",
        '{"part": 1' + "0" * 400 + "}",
        '{"part": 1' + "0" * 4400 + "}",
        '{"range": [0, 1' + "0" * 400 + "]}",
        '{"sides": ' + deep + "}",
        '{"size": ' + "[" * 100_000 + "}",
        '{"' + "a" * 10_000 + '": 1}',
        '{"' + "a" * 10_000 + '": 1, "' + "a" * 10_000 + '": 1}',
        '{"part": "' + "a" * 10_000 + '"}',
        "[" + "1," * 10_000 + "1]",
        '{"part": NaN}',
        '{"part": -Infinity}',
    ):
        with pytest.raises(InputError) as error:
            check("here", parse_object("here", text, "{}"), rules)
        assert str(error.value).startswith("here: ") and len(str(error.value)) < 400
