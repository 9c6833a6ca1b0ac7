"""A photo with its parts in color, and a legend that names them and their share of the picture."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lglstm.common import preprocessing
from lglstm.common.labels import LabelSet, class_shares

OPACITY = 0.55
SHORTEST, LONGEST = 360, 1600
"""Pixels of the drawing's longer side: small photos are enlarged, large ones scaled down."""

PAPER, INK = (250, 250, 248), (34, 34, 34)
TEXT, LINE, MARGIN, SWATCH = 15, 24, 12, 14
"""Pixels of the legend beside a drawing of LEGEND_FITS pixels; it grows with larger ones."""
LEGEND_FITS = 640


def overlay(photo: np.ndarray, ids: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Return `photo`, (H, W, 3) uint8 BGR, with the parts of its label map (H, W) in color."""
    opacity = np.where(ids == 0, 0, OPACITY).astype(np.float32)[:, :, None]
    blended = photo + opacity * (labels.palette[ids][:, :, ::-1] - photo.astype(np.float32))
    return np.rint(blended).astype(np.uint8)


def overlay_with_legend(photo: np.ndarray, ids: np.ndarray, labels: LabelSet) -> Image.Image:
    """Draw (H, W, 3) BGR `photo` and its label map (H, W) with a legend on the right, as RGB."""
    colored = overlay(*_scaled(photo, ids), labels)
    picture = Image.fromarray(np.ascontiguousarray(colored[:, :, ::-1]))
    entries = _entries(ids, labels)
    scale = max(1.0, max(picture.size) / LEGEND_FITS)
    size, line, margin, swatch = (round(scale * x) for x in (TEXT, LINE, MARGIN, SWATCH))
    font = ImageFont.load_default(size)
    text_width = max((int(font.getlength(text)) + 1 for _, text in entries), default=0)
    width = picture.width + 3 * margin + swatch + text_width
    height = max(picture.height, 2 * margin + line * len(entries))
    sheet = Image.new("RGB", (width, height), PAPER)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    x = picture.width + margin
    for k, (color, text) in enumerate(entries):
        y = margin + k * line
        draw.rectangle((x, y, x + swatch, y + swatch), color, outline=(120, 120, 120))
        draw.text((x + swatch + margin, y + swatch / 2), text, INK, font, anchor="lm")
    return sheet


def _entries(ids: np.ndarray, labels: LabelSet) -> list[tuple[tuple[int, int, int], str]]:
    """Color and text of each part that was found, the largest first; no background."""
    shares = class_shares(ids, labels.num_classes)
    found = [k for k in np.argsort(-shares, kind="stable") if k and shares[k]]
    if not found:
        return [(labels.colors[0], f"only {labels.names[0]}")]
    return [(labels.colors[k], f"{labels.names[k]}  {100 * shares[k]:.1f} %") for k in found]


def _scaled(photo: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    longest = max(ids.shape)
    factor = min(max(longest, SHORTEST), LONGEST) / longest
    height, width = (max(1, round(side * factor)) for side in ids.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    rows = preprocessing.nearest(ids.shape[0], height)
    columns = preprocessing.nearest(ids.shape[1], width)
    return cv2.resize(photo, (width, height), interpolation=method), ids[rows[:, None], columns]
