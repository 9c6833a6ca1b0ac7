"""Results as tables on a terminal, in the paper's form."""

from __future__ import annotations

import textwrap
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

    ours: row key → metric → percent. What does not fit into `width` characters gets heads of
    several lines, then the metrics as rows; only then do further tables take what is left over.
    """
    rows = [row for printed in block.rows for row in _with_ours(printed, ours.get(printed.key))]
    grid = [["Method", *block.columns.values()]]
    grid += [[name, *(numbers[metric] for metric in block.columns)] for name, numbers in rows]
    turned = [list(column) for column in zip(*grid, strict=True)]
    turned[0] = [{DIFFERENCE: "diff."}.get(name, name.strip()) for name in ["", *turned[0][1:]]]
    title = f"Table {block.number}. {block.title}"
    for lines, gap in ((grid, 1), (_with_high_head(grid), 1), (_with_high_head(turned), 0)):
        if sum(_widths(lines, gap)) <= width:
            return [_filled(title, lines, gap)]
    lines = _with_high_head(grid)
    parts = _fitting(_widths(lines, 1), width)
    return [
        _filled(title if part is parts[0] else None, [[x[k] for k in part] for x in lines], 1)
        for part in parts
    ]


def _filled(title: str | None, lines: Sequence[Sequence[str]], gap: int) -> Table:
    """A table whose first line is its head; what is ours is bold, as a row or as a column."""
    table = _plain(title, gap)
    for k, heading in enumerate(lines[0]):
        style = "bold" if heading == OURS.strip() else None
        table.add_column(heading, justify="right" if k else "left", no_wrap=True, style=style)
    for line in lines[1:]:
        table.add_row(*line, style="bold" if line[0] == OURS else None)
    return table


def _with_high_head(lines: list[list[str]]) -> list[list[str]]:
    """The same lines, the heads of their columns broken at spaces."""
    return [["\n".join(_narrow(heading)) for heading in lines[0]], *lines[1:]]


def _narrow(heading: str) -> list[str]:
    """A heading as lines no wider than its longest word."""
    return textwrap.wrap(heading, max(map(len, heading.split()), default=1))


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


def _fitting(widths: list[int], room: int) -> list[list[int]]:
    """Groups of columns no wider than `room`: the first column in each, the others in order."""
    groups: list[list[int]] = []
    for k in range(1, len(widths)):
        if not groups or sum(widths[j] for j in groups[-1]) + widths[k] > room:
            groups.append([0])
        groups[-1].append(k)
    return groups


def _widths(lines: Sequence[Sequence[str]], gap: int) -> list[int]:
    """Characters that each column takes, with what is between it and the next one."""
    columns = zip(*lines, strict=True)
    return [
        max(len(x) for cell in column for x in cell.split("\n")) + 1 + gap for column in columns
    ]


def _plain(title: str | None, gap: int = 1) -> Table:
    """A table with one rule below its head, and gap + 1 spaces between its columns."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, gap, 0, 0),
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
