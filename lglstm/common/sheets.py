"""Contact sheets: examples side by side with their label maps, a caption each, and one legend.

rows = [SheetRow([photo, truth, prediction], "horse_12   mean IoU 0.71"), ...]
write_sheet("runs/demo/sheet.png", rows, ("image", "truth", "prediction"), label_set("horse"))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path
from lglstm.common.labels import IGNORE, LabelSet

MARGIN = 12
GAP = 4
TEXT = 15
SMALL = 13
PAPER = (250, 250, 248)
INK = (34, 34, 34)
FAINT = (120, 120, 120)


@dataclass(frozen=True)
class SheetRow:
    """One example: its pictures from left to right, and a line of text below them.

    A picture is a photo, (H, W, 3) uint8 in BGR as the readers return it, or a label map,
    (H, W) of ids, drawn in the colors of the label set.
    """

    pictures: Sequence[np.ndarray]
    caption: str = ""


def contact_sheet(
    rows: Sequence[SheetRow],
    headings: Sequence[str],
    labels: LabelSet,
    *,
    title: str = "",
    columns: int = 1,
    height: int = 160,
) -> Image.Image:
    """Draw the examples in `columns` columns, every picture `height` pixels high, as RGB.

    The legend names the classes that occur in some label map of the sheet, and 255 as `ignore`.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one example")
    tiles = [[_tile(picture, labels, height) for picture in row.pictures] for row in rows]
    widths = [max(tile.width for tile in column) for column in zip(*tiles, strict=True)]
    columns = min(columns, len(rows))
    block = sum(widths) + GAP * (len(widths) - 1)
    width = max(columns * (block + 2 * MARGIN), 420)
    lines = _legend_lines(_present(rows), labels, width - 2 * MARGIN)
    top = MARGIN + (TEXT + MARGIN if title else 0)
    step = height + SMALL + MARGIN + GAP
    count = -(-len(rows) // columns)
    first = top + SMALL + GAP
    size = (width, first + count * step + len(lines) * (TEXT + GAP) + MARGIN)

    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN - 2), title, INK, _font(TEXT + 2))
    for column in range(columns):
        x = column * (block + 2 * MARGIN) + MARGIN
        for heading, tile_width in zip(headings, widths, strict=True):
            draw.text((x, top), _shorten(heading, tile_width, SMALL), FAINT, _font(SMALL))
            x += tile_width + GAP
    for k, (row, pictures) in enumerate(zip(rows, tiles, strict=True)):
        x = (k % columns) * (block + 2 * MARGIN) + MARGIN
        y = first + (k // columns) * step
        caption = _shorten(row.caption, block, SMALL)
        draw.text((x, y + height + 2), caption, INK, _font(SMALL))
        for tile, tile_width in zip(pictures, widths, strict=True):
            sheet.paste(tile, (x, y))
            x += tile_width + GAP
    _draw_legend(draw, lines, labels, first + count * step)
    return sheet


WIDEST = 8
"""Heights of a sheet's row that a picture may be wide; a panorama becomes lower instead."""


def write_sheet(
    path: str | os.PathLike[str],
    rows: Sequence[SheetRow],
    headings: Sequence[str],
    labels: LabelSet,
    **layout: Any,
) -> None:
    """Draw `contact_sheet` and write it to `path` (.png or .jpg), whole or not at all."""
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise InputError(f"{path}: is not the name of a picture; let it end in .png or .jpg")
    sheet = contact_sheet(rows, headings, labels, **layout)
    with atomic_path(path) as temporary:
        sheet.save(temporary, quality=90, optimize=True)


def color_labels(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Return the (H, W, 3) uint8 RGB drawing of a label map (H, W)."""
    return labels.palette[np.asarray(label, np.uint8)]


def _tile(picture: np.ndarray, labels: LabelSet, height: int) -> Image.Image:
    """Scale a picture to `height`: label maps by nearest neighbor, photos smoothly."""
    is_label = picture.ndim == 2
    rgb = color_labels(picture, labels) if is_label else picture[:, :, ::-1]
    image = Image.fromarray(np.ascontiguousarray(rgb))
    scale = min(height / image.height, WIDEST * height / image.width)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if is_label else Image.Resampling.LANCZOS
    return image.resize((width, height), method)


def _present(rows: Sequence[SheetRow]) -> list[int]:
    """Return the ids that occur in the label maps, in order."""
    maps = [picture for row in rows for picture in row.pictures if picture.ndim == 2]
    return sorted(set().union(*(np.unique(label).tolist() for label in maps)))


def _name(label_id: int, labels: LabelSet) -> str:
    if label_id < labels.num_classes:
        return labels.names[label_id]
    return "ignore" if label_id == IGNORE else f"{label_id}: not a class"


def _legend_lines(ids: list[int], labels: LabelSet, width: int) -> list[list[tuple[int, int]]]:
    """Break the legend into lines of (x, id) entries no wider than `width`."""
    lines: list[list[tuple[int, int]]] = []
    x = 0.0
    for label_id in ids:
        entry = TEXT + GAP + _font(SMALL).getlength(_name(label_id, labels)) + MARGIN
        if not lines or x + entry > width:
            lines.append([])
            x = 0.0
        lines[-1].append((int(x), label_id))
        x += entry
    return lines


def _draw_legend(
    draw: ImageDraw.ImageDraw, lines: list[list[tuple[int, int]]], labels: LabelSet, y: int
) -> None:
    for line in lines:
        for x, label_id in line:
            left = MARGIN + x
            color = tuple(int(c) for c in labels.palette[label_id])
            draw.rectangle((left, y, left + TEXT - 2, y + TEXT - 2), color, outline=FAINT)
            draw.text((left + TEXT + GAP, y), _name(label_id, labels), INK, _font(SMALL))
        y += TEXT + GAP


def _shorten(text: str, width: int, size: int) -> str:
    """Cut `text` in its middle so that it fits into `width` pixels: names differ at their ends."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[: kept // 2]}...{text[len(text) - (kept + 1) // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return "..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font: it is there on every machine."""
    return ImageFont.load_default(size)
