"""Label sets: the names of the ids in a label map, their colors, and what a mirror swaps.

A label map holds one id per pixel, 0 … `num_classes` − 1, and 255 where the truth is unknown.
Everything that names, draws or mirrors such ids asks here. A set is data: it comes with a data set,
a model or a converted file as the JSON object that `LabelSet.to_json` makes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.common.colors import distinct_colors
from lglstm.common.errors import InputError
from lglstm.common.json_files import read_object
from lglstm.common.rules import Rule, check, is_list, one_of, shown
from lglstm.common.suggest import nearest

IGNORE = 255
"""The id of pixels that neither train nor count."""

IGNORE_COLOR = (255, 255, 255)
"""White is kept for 255 alone, so that ignored pixels are seen at once."""

OUTSIDE_COLOR = (255, 0, 255)
"""Magenta marks ids that the set does not have, so that nobody overlooks a broken label map."""

RESERVED_COLORS = (IGNORE_COLOR, OUTSIDE_COLOR)

FEWEST_CLASSES, MOST_CLASSES = 2, 255
LONGEST_NAME = 64

_EXAMPLE = '{"name": "leaves", "names": ["background", "leaf", "stem"]}'


def _is_name(value: object) -> bool:
    """Whether a value can be a name: it is shown in tables, pages, pictures and terminals."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_NAME
        and value.isprintable()
        and value == value.strip()
    )


def _is_byte(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


_NAME_WORDS = f"1 to {LONGEST_NAME} printable characters without spaces around them"
_RULES = {
    "name": Rule(_is_name, _NAME_WORDS),
    "names": Rule(
        lambda value: is_list(value, _is_name) and FEWEST_CLASSES <= len(value) <= MOST_CLASSES,
        f"a list of {FEWEST_CLASSES} to {MOST_CLASSES} names, one per id from 0 on, each "
        f"{_NAME_WORDS}",
    ),
    "colors": Rule(
        lambda value: is_list(value, lambda color: is_list(color, _is_byte, 3)),
        "a list of [red, green, blue], whole numbers from 0 to 255, one per id",
    ),
    "mirror_swaps": Rule(
        lambda value: is_list(value, lambda pair: is_list(pair, _is_byte, 2)),
        "a list of [id, id], the classes that trade places in a mirror",
    ),
    "ignored": one_of(IGNORE),
}
"""What each key of a label set's JSON object may hold."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of one kind of label map.

    name: what the command line and `dataset.json` call it.
    names: one per id, background first.
    mirror_swaps: pairs of ids that trade places when an image is flipped left to right.
    colors: one RGB triple per id.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    mirror_swaps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if flaw := self._flaw():
            raise ValueError(f"label set {self.name}: {flaw}")

    def _flaw(self) -> str | None:
        """Say which names, colors or swaps do not fit together, and how they would."""
        if name := _twice(self.names):
            return f"the class {shown(name)} is there twice; give every id a name of its own"
        if len(self.colors) != self.num_classes:
            return (
                f"has {len(self.colors)} colors for {self.num_classes} classes; give one per id, "
                "or leave colors out"
            )
        if color := _twice(self.colors):
            one, other, *_ = (k for k, own in enumerate(self.colors) if own == color)
            return f"the ids {one} and {other} have the same color {list(color)}; give each its own"
        for color, use in ((IGNORE_COLOR, f"id {IGNORE}"), (OUTSIDE_COLOR, "unknown ids")):
            if color in self.colors:
                return (
                    f"the color {list(color)} of '{self.names[self.colors.index(color)]}' is kept "
                    f"for {use}; choose another"
                )
        ids_swapped = [k for pair in self.mirror_swaps for k in pair]
        if any(not 0 <= k < self.num_classes for k in ids_swapped):
            return (
                f"mirror_swaps has the id {max(ids_swapped)}; the classes are 0 to "
                f"{self.num_classes - 1}"
            )
        if (k := _twice(ids_swapped)) is not None:
            return f"mirror_swaps has the id {k} twice; a class trades places with one other"
        return None

    @classmethod
    def from_json(cls, data: object, where: str) -> LabelSet:
        """Return the label set that an object parsed from JSON describes.

        `name` and `names` must be there; without `colors` the set gets colors far from each other,
        without `mirror_swaps` a mirror swaps nothing. where: the file or option, which begins every
        message. Raises InputError when something is missing, unknown, or does not fit together.
        """
        if not isinstance(data, dict):
            raise InputError(f"{where}: is not a label set; write an object such as {_EXAMPLE}")
        check(where, data, _RULES, required=("name", "names"))
        names = tuple(data["names"])
        if "colors" in data:
            colors = tuple((r, g, b) for r, g, b in data["colors"])
        else:
            colors = distinct_colors(len(names), RESERVED_COLORS)
        swaps = tuple((a, b) for a, b in data.get("mirror_swaps", ()))
        try:
            return cls(data["name"], names, colors, swaps)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the set as an object for JSON, from which `from_json` makes the same set."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "mirror_swaps": [list(pair) for pair in self.mirror_swaps],
            "ignored": IGNORE,
        }

    def to_text(self) -> str:
        """Return the text of the set's JSON file, one key a line."""
        lines = (f"  {json.dumps(key)}: {json.dumps(v)}" for key, v in self.to_json().items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB: the colors of the classes, white for 255, magenta for the rest."""
        palette = np.full((256, 3), OUTSIDE_COLOR, np.uint8)
        palette[: self.num_classes] = self.colors
        palette[IGNORE] = IGNORE_COLOR
        palette.setflags(write=False)
        return palette

    def id_of(self, name: str) -> int:
        """Return the id of a class name; raise InputError when the set has no such class."""
        if name not in self.names:
            raise InputError(
                f"label set {self.name} has no class '{name}'; choose one of "
                f"{', '.join(self.names)}"
            )
        return self.names.index(name)


def _twice(values: Sequence[Any]) -> Any:
    """The first value that is there more than once; None when all differ."""
    return next((value for k, value in enumerate(values) if value in values[:k]), None)


def label_set(asked: str) -> LabelSet:
    """Return the ready set of this name, or, if it ends in .json, the one in this file.

    Raises InputError with the nearest name, or with what is wrong with the file.
    """
    if asked in LABEL_SETS:
        return LABEL_SETS[asked]
    if asked.endswith(".json"):
        return read_label_set(Path(asked))
    raise InputError(
        f"there is no label set '{asked}'; {nearest(asked, LABEL_SETS)}, or give a file NAME.json"
    )


def read_label_set(path: Path) -> LabelSet:
    """Return the label set in a JSON file: the object of a set, or a data set's `dataset.json`.

    A `dataset.json` of an older version has the name of a ready set. Raises InputError.
    """
    data = read_object(path, _EXAMPLE)
    described = data["label_set"] if "names" not in data and "label_set" in data else data
    if isinstance(described, str) and described in LABEL_SETS:
        return LABEL_SETS[described]
    return LabelSet.from_json(described, str(path))


def class_shares(ids: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of each class in a label map, (num_classes,), 0 to 1; all are below num_classes."""
    return np.bincount(ids.ravel(), minlength=num_classes) / ids.size


def numbered(count: int) -> LabelSet:
    """Return the set of a net that nobody described: its names are class 0, class 1 and so on."""
    if count > MOST_CLASSES:
        raise InputError(f"{count:,} classes are more than the {MOST_CLASSES} of a label map")
    names = tuple(f"class {k}" for k in range(count))
    return LabelSet(f"{count} classes", names, distinct_colors(count, RESERVED_COLORS))


DATA_SET = "dataset.json"
"""The file beside a prepared data set's lists that says, among others, its label set."""

READY_SETS = Path(__file__).with_name("label_sets")
_ORDER = ("horse", "cow", "atr", "fashionista56", "lip", "cihp", "voc")

LABEL_SETS: dict[str, LabelSet] = {
    name: read_label_set(READY_SETS / f"{name}.json") for name in _ORDER
}
"""The ready sets by name; the 18-label Fashionista set uses `atr`."""
