"""Label sets: the names of the ids in a label map, their colors, and what a mirror swaps.

A label map holds one id per pixel, 0 … `num_classes` − 1, and 255 where the truth is unknown.
Everything that names, draws or mirrors such ids asks here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.suggest import nearest

IGNORE = 255
"""The id of pixels that neither train nor count."""

IGNORE_COLOR = (255, 255, 255)
"""White is kept for 255 alone, so that ignored pixels are seen at once."""

OUTSIDE_COLOR = (255, 0, 255)
"""Magenta marks ids that the set does not have, so that nobody overlooks a broken label map."""


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
        reserved = {IGNORE_COLOR, OUTSIDE_COLOR}
        if len(self.colors) != len(self.names) or len(set(self.names)) != len(self.names):
            raise ValueError(f"label set {self.name}: one distinct name and one color per id")
        if len(set(self.colors) | reserved) != len(self.colors) + len(reserved):
            raise ValueError(f"label set {self.name}: colors repeat or are reserved")

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


def label_set(name: str) -> LabelSet:
    """Return the label set called `name`; raise InputError with the nearest name otherwise."""
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    raise InputError(f"there is no label set '{name}'; {nearest(name, LABEL_SETS)}")


def _spread_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return black and `count` - 1 more colors, each as far as possible from those before it."""
    steps = np.arange(0, 256, 51)
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
