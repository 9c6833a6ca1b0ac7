"""Results as tables on a terminal, in the paper's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from lglstm.evaluation.metrics import AVERAGES, PER_CLASS
from lglstm.evaluation.paper import Cell, PaperRow, PaperTable

if TYPE_CHECKING:
    from lglstm.evaluation.collection import ParsedPhoto
    from lglstm.evaluation.compare import PairedComparison

MISSING = "–"
OURS, DIFFERENCE = "  ours", "  difference"


def comparison_table(cells: Sequence[Cell], row: str | None, images: int) -> Table:
    """Paper, ours and difference for each metric, in percent."""
    title = f"{row}, {images} images" if row else f"{images} images"
    table = _plain(title)
    table.add_column("percent")
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


def difference_table(comparison: PairedComparison) -> Table:
    """Both values, difference and interval of every metric, in percent."""
    names = [str(e.path.parent) for e in (comparison.baseline, comparison.other)]
    table = _plain(f"{names[1]} against {names[0]}, {comparison.images} images")
    table.add_column("percent")
    for heading in ("baseline", "other", "difference", "95 % from", "to"):
        table.add_column(heading, justify="right")
    for one in comparison.differences:
        values = [number(one.baseline), number(one.other)]
        values += [signed(x) for x in (one.difference, one.low, one.high)]
        table.add_row(heading_of(one.metric), *values)
    return table


def heading_of(metric: str) -> str:
    """How a metric is called in tables: "Mean IoU", or "IoU head" for a class."""
    key, _, name = metric.partition(".")
    return f"{PER_CLASS[key]} {name}" if name else AVERAGES[key]


def layers_table(layers: Mapping[str, Mapping[str, Any]]) -> Table:
    """Mean IoU and pixel accuracy after each LG-LSTM layer, from evaluation.json's `layers`."""
    table = _plain("After each LG-LSTM layer")
    for heading in ("layer", "mean IoU", "pixel accuracy"):
        table.add_column(heading, justify="right")
    for k, metrics in enumerate(layers.values(), start=1):
        percents = (
            None if metrics[key] is None else 100 * metrics[key]
            for key in ("mean_iou", "pixel_accuracy")
        )
        table.add_row(str(k), *map(number, percents))
    return table


def paper_tables(
    block: PaperTable, ours: Mapping[str, Mapping[str, float | None]], width: int
) -> list[Table]:
    """One block of a table of the paper, our row below each row that was measured.

    ours: row key → metric → percent. Columns that don't fit into `width` characters make further
    tables with the same rows.
    """
    rows = [row for printed in block.rows for row in _with_ours(printed, ours.get(printed.key))]
    methods = ["Method", *(name for name, _ in rows)]
    columns = [
        [heading, *(numbers[metric] for _, numbers in rows)]
        for metric, heading in block.columns.items()
    ]
    title = f"Table {block.number}. {block.title}"
    tables: list[Table] = []
    for group in _fitting(columns, width - _width(methods)):
        table = _plain(title if not tables else None)
        for k, column in enumerate([methods, *group]):
            table.add_column(column[0], justify="right" if k else "left", no_wrap=True)
        for method, *cells in zip(*(column[1:] for column in (methods, *group)), strict=True):
            table.add_row(method, *cells, style="bold" if method == OURS else None)
        tables.append(table)
    return tables


def _with_ours(
    row: PaperRow, measured: Mapping[str, float | None] | None
) -> list[tuple[str, dict[str, str]]]:
    """A printed row, and when it was measured, our row and the difference below it."""
    lines = [(row.method, {metric: number(paper) for metric, paper in row.cells.items()})]
    if measured is None:
        return lines
    cells = [Cell(metric, "", paper, measured.get(metric)) for metric, paper in row.cells.items()]
    return [
        *lines,
        (OURS, {cell.metric: number(cell.ours) for cell in cells}),
        (DIFFERENCE, {cell.metric: signed(cell.difference) for cell in cells}),
    ]


def _fitting(columns: list[list[str]], room: int) -> list[list[list[str]]]:
    """Split the columns, in order, into groups no wider than `room` (at least one column each)."""
    groups: list[list[list[str]]] = []
    used = 0
    for column in columns:
        if not groups or used + _width(column) > room:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += _width(column)
    return groups


def _width(column: Sequence[str]) -> int:
    """Characters that a column takes, with the gap to the next one."""
    return max(map(len, column)) + 2


def _plain(title: str | None) -> Table:
    """A table with one rule below its head."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def number(percent: float | None, digits: int = 2) -> str:
    return MISSING if percent is None else f"{percent:.{digits}f}"


def signed(points: float | None) -> str:
    return MISSING if points is None else f"{points:+.2f}"


def areas_table(results: Sequence[ParsedPhoto], names: Sequence[str]) -> Table:
    """The share of each part in each photo, in percent; parts that no photo shows are left out."""
    totals = [sum(column) for column in zip(*(result.pixels for result in results), strict=True)]
    shown = [k for k, total in enumerate(totals) if total]
    table = _plain(None)
    table.add_column("percent of the photo")
    for k in shown:
        table.add_column(names[k], justify="right")
    for result in results:
        table.add_row(result.photo.name, *(f"{100 * result.shares[k]:.1f}" for k in shown))
    return table
