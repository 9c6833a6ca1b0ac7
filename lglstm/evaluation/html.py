"""Pieces of HTML that several sections of the report use."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from lglstm.common.labels import LabelSet


def choices(name: str, legend: str, options: Mapping[str, str], shows: str = "") -> str:
    """Radio buttons, value → text; with `shows`, they show the elements <shows>-<value>."""
    reacts = f' data-shows="{shows}"' if shows else f' id="{name}"'
    buttons = "".join(
        f'<label class="choice"><input type="radio" name="{name}" value="{value}"'
        f"{' checked' if k == 0 else ''}><span>{escape(text)}</span></label>"
        for k, (value, text) in enumerate(options.items())
    )
    return (
        f"<fieldset{reacts}><legend>{escape(legend)}</legend>"
        f'<div class="choices">{buttons}</div></fieldset>'
    )


def swatch(labels: LabelSet, k: int) -> str:
    """The color of class k, as in the label maps."""
    red, green, blue = labels.colors[k]
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'


def slider(name: str, text: str, low: int, high: int, value: int, shown: str) -> str:
    """A range from `low` to `high` with what its value means beside it."""
    return (
        f'<label class="slider">{escape(text)} <input type="range" id="{name}" min="{low}" '
        f'max="{high}" value="{value}"><output>{shown}</output></label>'
    )
