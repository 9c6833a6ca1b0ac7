"""Results as tables on a terminal, in the paper's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table as RichTable
from rich.text import Text

from evaluation.paper import Cell, Table

MISSING = "–"


def comparison_table(cells: Sequence[Cell], row: str | None, images: int) -> RichTable:
    """Paper, ours and difference for each metric, in percent."""
    title = f"{row}, {images} images" if row else f"{images} images"
    table = RichTable(title=title, title_justify="left", caption="percent", caption_justify="left")
    table.add_column("")
    for heading in ("paper", "ours", "difference") if row else ("ours",):
        table.add_column(heading, justify="right")
    for cell in cells:
        numbers = (
            [number(cell.paper), number(cell.ours), signed(cell.difference)]
            if row
            else [number(cell.ours)]
        )
        table.add_row(cell.heading, *numbers)
    return table


def layers_table(layers: Mapping[str, Mapping[str, object]]) -> RichTable:
    """Mean IoU and pixel accuracy after each LG-LSTM layer, from evaluation.json's `layers`."""
    table = RichTable(title="After each LG-LSTM layer", title_justify="left")
    for heading in ("layer", "mean IoU", "pixel accuracy"):
        table.add_column(heading, justify="right")
    for k, metrics in enumerate(layers.values(), start=1):
        percents = (
            None if metrics[key] is None else 100 * metrics[key]
            for key in ("mean_iou", "pixel_accuracy")
        )
        table.add_row(str(k), *map(number, percents))
    return table


def paper_table(block: Table, ours: Mapping[str, Mapping[str, float | None]]) -> RichTable:
    """One block of a table of the paper, our row below each row that was measured.

    ours: row key → metric → percent.
    """
    title = Text(f"Table {block.number}. {block.title}")
    table = RichTable(title=title, title_justify="left")
    table.add_column("Method", no_wrap=True)
    for heading in block.columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in block.rows:
        measured = ours.get(row.key)
        paper_cells = [number(row.cells[metric]) for metric in block.columns]
        table.add_row(row.method, *paper_cells, end_section=measured is None)
        if measured is None:
            continue
        values = [measured.get(metric) for metric in block.columns]
        table.add_row("  ours", *map(number, values), style="bold")
        differences = [
            None if value is None or row.cells[metric] is None else value - row.cells[metric]
            for metric, value in zip(block.columns, values, strict=True)
        ]
        table.add_row("  difference", *map(signed, differences), end_section=True)
    return table


def number(percent: float | None) -> str:
    return MISSING if percent is None else f"{percent:.2f}"


def signed(points: float | None) -> str:
    return MISSING if points is None else f"{points:+.2f}"
