"""From photo to net and back: mean, channel order and sizes, decided here and nowhere else.

A photo is stretched to the net's input, its mean is subtracted, and it goes in as (3, h, w) float32
in BGR order, unscaled: what the VGG-16 weights were trained on. Sizes are (height, width). All
resizing aligns the outer edges of the pictures (a pixel is an area, its center at ½).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

MEAN_BGR = (104.008, 116.669, 122.675)
"""Mean of the images VGG-16 was trained on, in the order blue, green, red."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Preparation:
    """How photos go into a net: stretched to `size`, minus the mean, times `scale`.

    channel_order: "BGR", or "RGB" for a net that was trained elsewhere.
    """

    size: Size
    mean_bgr: Sequence[float] = MEAN_BGR
    scale: float = 1.0
    channel_order: str = "BGR"

    def blob(self, photo: np.ndarray) -> np.ndarray:
        """Return (3, h, w) float32 of a photo, (H, W, 3) BGR; see `to_blob`."""
        blob = to_blob(photo, self.size, self.mean_bgr)
        if self.scale != 1:
            blob *= np.float32(self.scale)
        return blob[::-1] if self.channel_order == "RGB" else blob


def to_blob(photo: np.ndarray, size: Size, mean: Sequence[float] = MEAN_BGR) -> np.ndarray:
    """Return the net's input, (3, h, w) float32: `photo` stretched to `size`, minus the mean.

    photo: (H, W, 3), BGR, uint8 or float32 in 0 … 255.
    """
    stretched = resize_photo(np.asarray(photo, np.float32), size)
    blob = np.empty((3, *size), np.float32)
    return np.subtract(
        stretched.transpose(2, 0, 1), np.asarray(mean, np.float32)[:, None, None], out=blob
    )


def to_picture(blob: np.ndarray, mean: Sequence[float] = MEAN_BGR) -> np.ndarray:
    """Return what the net saw, (h, w, 3) uint8 BGR, from its input (3, h, w)."""
    photo = blob.transpose(1, 2, 0) + np.asarray(mean, np.float32)
    return np.rint(photo).clip(0, 255).astype(np.uint8)


def resize_photo(photo: np.ndarray, size: Size) -> np.ndarray:
    """Stretch (H, W, 3) to `size`: area means when both sides shrink, bilinear otherwise.

    Bilinear sampling alone would skip pixels of a photo that shrinks to less than half.
    """
    height, width = size
    if photo.shape[:2] == (height, width):
        return photo
    shrinks = height <= photo.shape[0] and width <= photo.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(photo, (width, height), interpolation=method)


def stretched(photo: np.ndarray, size: Size) -> np.ndarray:
    """`resize_photo`, rounded to (h, w, 3) uint8: for nets that take photos themselves."""
    return np.rint(resize_photo(np.asarray(photo, np.float32), size)).clip(0, 255).astype(np.uint8)


def to_label_blob(label: np.ndarray, size: Size, stride: int = 1) -> np.ndarray:
    """Return the truth at the net's stride, (1, ⌈h/s⌉, ⌈w/s⌉) float32, as Caffe's losses take it.

    label: (H, W) ids. It is stretched to `size` by nearest neighbor, never blended, and every
    `stride`-th pixel is taken, beginning with the first: unit (i, j) of a net of stride 8 is
    centered on pixel (8i, 8j) of its input when the input has 8m + 1 pixels.
    """
    rows, columns = (
        nearest(source, target)[::stride] for source, target in zip(label.shape, size, strict=True)
    )
    return label[rows[:, None], columns][None].astype(np.float32)


def nearest(source: int, target: int) -> np.ndarray:
    """(target,) indices: the source pixel in which the center of each target pixel lies."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def to_label_map(scores: np.ndarray, size: Size) -> np.ndarray:
    """Return the best class of each pixel, (H, W) uint8 at `size`, the photo's own.

    scores: (C, h, w) of any scale, C at most 256. The score maps are resized bilinearly, then the
    arg-max is taken, so that borders are as fine as the photo; a tie goes to the lower id. Works
    class by class: memory does not grow with C.
    """
    height, width = size
    best = np.full((height, width), -np.inf, np.float32)
    ids = np.zeros((height, width), np.uint8)
    for k, score in enumerate(np.asarray(scores, np.float32)):
        resized = cv2.resize(score, (width, height), interpolation=cv2.INTER_LINEAR)
        better = resized > best
        best[better] = resized[better]
        ids[better] = k
    return ids
