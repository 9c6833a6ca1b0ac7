"""Label sets: the names of the ids in a label map, their colors, and what a mirror swaps.

A label map holds one id per pixel, 0 … `num_classes` − 1, and 255 where the truth is unknown.
Everything that names, draws or mirrors such ids asks here. A set is data: it comes with a data set,
a model or a converted file as the JSON object that `LabelSet.to_json` makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.rules import Rule, check, is_list, one_of, shown
from lglstm.common.suggest import nearest

IGNORE = 255
"""The id of pixels that neither train nor count."""

IGNORE_COLOR = (255, 255, 255)
"""White is kept for 255 alone, so that ignored pixels are seen at once."""

OUTSIDE_COLOR = (255, 0, 255)
"""Magenta marks ids that the set does not have, so that nobody overlooks a broken label map."""

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
        colors = tuple((r, g, b) for r, g, b in data.get("colors", _spread_colors(len(names))))
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


def label_set(name: str) -> LabelSet:
    """Return the label set called `name`; raise InputError with the nearest name otherwise."""
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    raise InputError(f"there is no label set '{name}'; {nearest(name, LABEL_SETS)}")


def _spread_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return black and `count` - 1 more colors, each as far as possible from those before it."""
    steps = np.arange(0, 256, 51 if count < 200 else 36)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    chosen = [IGNORE_COLOR, OUTSIDE_COLOR, (0, 0, 0)]
    while len(chosen) < count + 2:
        distance = np.linalg.norm(cube[:, None] - np.array(chosen), axis=2).min(1)
        red, green, blue = cube[distance.argmax()].tolist()
        chosen.append((red, green, blue))
    return tuple(chosen[2:])


ANIMAL_PARTS = ("background", "head", "body", "leg", "tail")
_ANIMAL_COLORS = ((0, 0, 0), (230, 75, 60), (52, 136, 214), (84, 180, 88), (245, 190, 50))

_ATR = (
    ("background", (0, 0, 0)),
    ("hat", (126, 63, 178)),
    ("hair", (110, 70, 40)),
    ("sunglass", (255, 225, 25)),
    ("upper-clothes", (40, 110, 200)),
    ("skirt", (230, 110, 180)),
    ("pants", (30, 60, 120)),
    ("dress", (200, 40, 100)),
    ("belt", (170, 170, 170)),
    ("left-shoe", (255, 120, 30)),
    ("right-shoe", (170, 75, 10)),
    ("face", (250, 200, 160)),
    ("left-leg", (120, 220, 110)),
    ("right-leg", (35, 130, 55)),
    ("left-arm", (90, 220, 225)),
    ("right-arm", (20, 135, 145)),
    ("bag", (215, 40, 35)),
    ("scarf", (150, 140, 240)),
)
"""The ids of the ATR set. Left and right share a hue, the left one is lighter."""

_FASHIONISTA_NAMES = """
    null tights shorts blazer t-shirt bag shoes coat skirt purse boots blouse jacket bra dress
    pants sweater shirt jeans leggings scarf hat top cardigan accessories vest sunglasses belt
    socks glasses intimate stockings necklace cape jumper sweatshirt suit bracelet heels wedges
    ring flats tie romper sandals earrings gloves sneakers clogs watch pumps wallet bodysuit
    loafers hair skin
""".split()  # noqa: SIM905

LABEL_SETS: dict[str, LabelSet] = {
    labels.name: labels
    for labels in (
        LabelSet("horse", ANIMAL_PARTS, _ANIMAL_COLORS),
        LabelSet("cow", ANIMAL_PARTS, _ANIMAL_COLORS),
        LabelSet(
            "atr",
            tuple(name for name, _ in _ATR),
            tuple(color for _, color in _ATR),
            mirror_swaps=((9, 10), (12, 13), (14, 15)),
        ),
        LabelSet(
            "fashionista56", tuple(_FASHIONISTA_NAMES), _spread_colors(len(_FASHIONISTA_NAMES))
        ),
    )
}
"""Every label set by name; the 18-label Fashionista set uses `atr`."""
