"""Colors for classes, as different as can be, also for people with a color-vision deficiency.

The difference of two colors is CIEDE2000, between Lab colors under D65: 1 is just visible side by
side. Deficiencies are simulated by the matrices of Machado, Oliveira and Fernandes ("A
Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG 2009) for linear
RGB at full severity: no red cones (protanopia), no green cones (deuteranopia). People with weaker
red or green cones, who are more, see more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

Color = tuple[int, int, int]

SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
"""What linear RGB becomes to the eye."""

WANTED = 12.0
"""No two classes shall look closer than this to normal sight, as long as that is possible."""

_LEVELS = 13
_NORMAL_SIGHT = 1.5
_POWER = 12
_MOST_SWEEPS = 20


def as_seen(colors: Sequence[Color] | np.ndarray, sight: str) -> np.ndarray:
    """Return (n, 3) sRGB, 0 … 1, as eyes of the given kind see the `colors` (0 … 255)."""
    srgb = np.asarray(colors, float) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ SIGHTS[sight].T, 0, 1)
    return np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)


def differences(colors: Sequence[Color] | np.ndarray, sight: str) -> np.ndarray:
    """Return (n, n): how different every two colors look to eyes of a kind, in CIEDE2000."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    lab = rgb2lab(as_seen(colors, sight))
    return deltaE_ciede2000(lab[:, None], lab[None])


@cache
def distinct_colors(count: int, reserved: tuple[Color, ...]) -> tuple[Color, ...]:
    """Return black and `count` - 1 more colors, far from each other and from the `reserved` ones.

    What repels two colors is the inverse of their difference to the twelfth power, so the closest
    pairs count most; their difference is the least of the three kinds of sight, where normal sight
    counts two thirds. Starting from one color after another, each put where it is repelled least,
    every color moves as long as it finds a better place. The same count gives the same colors.
    """
    grid = _Grid((*reserved, (0, 0, 0)))
    fixed = len(reserved) + 1
    chosen = list(range(fixed))
    for _ in range(count - 1):
        chosen.append(grid.best(chosen))
    for _ in range(_MOST_SWEEPS):
        before = list(chosen)
        for k in range(fixed, len(chosen)):
            others = chosen[:k] + chosen[k + 1 :]
            chosen[k] = grid.best(others, at_present=chosen[k])
        if chosen == before:
            break
    return tuple(grid.color(k) for k in chosen[fixed - 1 :])


class _Grid:
    """The colors that can be chosen, and how much each repels all others."""

    def __init__(self, first: tuple[Color, ...]) -> None:
        from skimage.color import rgb2lab

        steps = np.rint(np.linspace(0, 255, _LEVELS)).astype(int)
        cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        others = [color for color in cube.tolist() if tuple(color) not in first]
        self.colors = np.array([*first, *others])
        self.lab = {sight: rgb2lab(as_seen(self.colors, sight)) for sight in SIGHTS}
        self.repulsions: dict[int, np.ndarray] = {}

    def color(self, k: int) -> Color:
        red, green, blue = self.colors[k].tolist()
        return red, green, blue

    def best(self, others: list[int], at_present: int | None = None) -> int:
        """The color that the `others` repel least; the present one if none is better."""
        field = np.sum([self.repulsion(k) for k in others], axis=0)
        best = int(field.argmin())
        if at_present is not None and field[best] > field[at_present] * (1 - 1e-9):
            return at_present
        return best

    def repulsion(self, k: int) -> np.ndarray:
        """(n,): how much color k repels each."""
        if k not in self.repulsions:
            from skimage.color import deltaE_ciede2000

            normal, *deficient = (
                deltaE_ciede2000(lab, lab[k : k + 1]) for lab in self.lab.values()
            )
            difference = np.min([normal / _NORMAL_SIGHT, *deficient], axis=0)
            # Too close for everybody: worse than anything that only some cannot see.
            too_close = normal < WANTED
            difference[too_close] = np.minimum(difference, normal / (2 * WANTED))[too_close]
            self.repulsions[k] = np.maximum(difference, 0.01) ** -float(_POWER)
        return self.repulsions[k]
