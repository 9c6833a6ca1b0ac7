"""Random changes to a training example: photo and label map move together.

photo, label = augment(photo, label, Augmentation(mirror=True), np.random.default_rng(7))

Every change draws its numbers whether it is switched on or not, so that switching one off leaves
the others as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lglstm.common.labels import IGNORE
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.layers.seg_options import Augmentation, Range

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, the last two exclusive."""

Pair = tuple[np.ndarray, np.ndarray]
"""Photo (H, W, 3), BGR, uint8 or float32, and label map (H, W) uint8."""


def augment(
    photo: np.ndarray,
    label: np.ndarray,
    ranges: Augmentation,
    rng: np.random.Generator,
    ignore: int = IGNORE,
    mean: Sequence[float] = MEAN_BGR,
) -> Pair:
    """Return the example changed at random within `ranges`, of any size.

    photo: (H, W, 3) uint8 BGR; label: (H, W) uint8. The returned photo is float32 in 0 … 255 when
    colors or angles changed.
    """
    box = jitter(label, ranges.box_jitter, rng, ignore)
    box = crop(box, ranges.crop, rng)
    zoom, angle = rng.uniform(*ranges.scale), rng.uniform(*ranges.rotation)
    flip = rng.random() < 0.5
    photo = scale_colors(photo, rng.uniform(*ranges.color, size=3))
    photo, label = cut(photo, label, box, zoom, angle, ignore, mean)
    return mirror(photo, label, ranges.mirror_swaps) if ranges.mirror and flip else (photo, label)


def jitter(label: np.ndarray, part: Range, rng: np.random.Generator, ignore: int) -> Box:
    """A random box between the whole picture and the object's box; see `Augmentation`."""
    whole = np.array([0, 0, *label.shape])
    inner = object_box(label, ignore)
    moved = whole + rng.uniform(*part, size=4) * ((whole if inner is None else inner) - whole)
    # The object's sides are whole numbers, so rounding never cuts into it.
    top, left, bottom, right = np.rint(moved).astype(int).tolist()
    return top, left, bottom, right


def object_box(label: np.ndarray, ignore: int = IGNORE) -> np.ndarray | None:
    """The box around all pixels that are neither 0 (background) nor `ignore`; None without any."""
    shown = (label != 0) & (label != ignore)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not len(rows):
        return None
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def crop(box: Box, part: Range, rng: np.random.Generator) -> Box:
    """A random box inside `box` that keeps these parts of its sides, at least a pixel."""
    starts, sides = np.array(box[:2]), np.array(box[2:]) - box[:2]
    kept = np.maximum(1, np.rint(rng.uniform(*part, size=2) * sides)).astype(int)
    top, left = starts + np.floor(rng.random(2) * (sides - kept + 1)).astype(int)
    return int(top), int(left), int(top + kept[0]), int(left + kept[1])


def scale_colors(photo: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply the color channels of a uint8 photo by their factors, within 0 … 255, float32."""
    if np.all(factors == 1):
        return photo
    table = np.clip(np.arange(256)[:, None] * factors, 0, 255).astype(np.float32)
    return cv2.LUT(photo, table[None])


def cut(
    photo: np.ndarray,
    label: np.ndarray,
    box: Box,
    zoom: float = 1,
    angle: float = 0,
    ignore: int = IGNORE,
    mean: Sequence[float] = MEAN_BGR,
) -> Pair:
    """Return what `box` shows when the picture is zoomed and turned about the box's center.

    angle: degrees counter-clockwise. What comes from outside the picture gets `mean` and `ignore`.
    """
    top, left, bottom, right = box
    if zoom == 1 and angle == 0:
        return photo[top:bottom, left:right], label[top:bottom, left:right]
    center = ((left + right - 1) / 2, (top + bottom - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, angle, zoom)
    matrix[:, 2] -= (left, top)
    size = (right - left, bottom - top)
    turned = cv2.warpAffine(  # what comes from outside is constant: the mean, then `ignore`
        photo.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=mean
    )
    ids = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderValue=ignore)
    return turned, ids


def mirror(photo: np.ndarray, label: np.ndarray, swaps: Sequence[tuple[int, int]] = ()) -> Pair:
    """Flip left to right; the ids of each pair in `swaps` trade places."""
    table = np.arange(256, dtype=np.uint8)
    for left, right in swaps:
        table[left], table[right] = right, left
    return photo[:, ::-1], table[label[:, ::-1]]
