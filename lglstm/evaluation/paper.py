"""The paper's five tables as data (paper_tables.toml), and our numbers beside them.

A row is named <dataset>.<method>, `horse.lg_lstm`, and gathers what all tables say of it: Tables 2
and 4 both print `atr.lg_lstm_more`. Numbers are percentages; a cell that the paper leaves empty, or
that was not measured by us, is None and never enters a difference.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.common.suggest import nearest
from lglstm.evaluation.metrics import AVERAGES, Metrics

TABLES = Path(__file__).with_name("paper_tables.toml")

LG_LSTM = "lg_lstm"
"""The id of the paper's own method."""


@dataclass(frozen=True)
class PaperRow:
    """One printed row: `key` such as horse.lg_lstm, the method as printed, metric → percent."""

    key: str
    method: str
    cells: Mapping[str, float | None]


@dataclass(frozen=True)
class PaperTable:
    """One block of a printed table: the rows of one data set. `columns` is metric → heading."""

    number: int
    dataset: str
    title: str
    columns: Mapping[str, str]
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class Cell:
    """One metric: heading, paper and ours in percent, either of them None when there is none."""

    metric: str
    heading: str
    paper: float | None
    ours: float | None

    @property
    def difference(self) -> float | None:
        """Ours minus paper, in percentage points."""
        return None if self.paper is None or self.ours is None else self.ours - self.paper

    def as_dict(self) -> dict[str, object]:
        return {
            "metric": self.metric,
            "paper": self.paper,
            "ours": self.ours,
            "difference": self.difference,
        }


@cache
def tables() -> tuple[PaperTable, ...]:
    """All blocks of the five tables, in the paper's order."""
    return tuple(_table(block) for block in _contents()["table"])


def test_set(key: str) -> str:
    """The images that the numbers of a row are for, in words."""
    return _contents()["test_sets"][key.partition(".")[0]]


def blocks_of(number: int) -> tuple[PaperTable, ...]:
    """The blocks of one table; raise InputError when the paper has no such table."""
    found = tuple(table for table in tables() if table.number == number)
    if not found:
        raise InputError(f"the paper has no Table {number}; choose 1, 2, 3, 4 or 5")
    return found


def rows() -> dict[str, dict[str, float | None]]:
    """Every method by key: metric → percent over all tables that print it."""
    merged: dict[str, dict[str, float | None]] = {}
    for table in tables():
        for row in table.rows:
            merged.setdefault(row.key, {}).update(row.cells)
    return merged


def find_row(key: str) -> dict[str, float | None]:
    """The numbers of one method; raise InputError with the nearest key when there is none."""
    known = rows()
    if key in known:
        return known[key]
    raise InputError(f"the paper has no row {key}; {nearest(key, known)}")


def row_of_model(name: str) -> str | None:
    """The row that a model of models/ reproduces: horse_local2 → horse.local2; else None."""
    dataset, _, variant = name.partition("_")
    methods = (variant, f"{LG_LSTM}_{variant}") if variant else (LG_LSTM,)
    return next((key for m in methods if (key := f"{dataset}.{m}") in rows()), None)


def headings(key: str | None, names: tuple[str, ...]) -> dict[str, str]:
    """Metric → heading of the table that a result belongs to.

    key: a row of the paper, whose tables give the form. Without one: the first tables that speak of
    the classes `names`, or every average and each class's IoU when none does.
    Raises InputError for an unknown row, and for one of a data set with other classes.
    """
    if key is None:
        dataset = _dataset_with(names)
        forms = [table for table in tables() if table.dataset == dataset]
    else:
        find_row(key)
        forms = [table for table in tables() if key in {row.key for row in table.rows}]
    form = {metric: text for table in forms for metric, text in table.columns.items()}
    strangers = sorted(_classes(form) - set(names))
    if strangers:
        raise InputError(
            f"row {key} has numbers for the classes {', '.join(strangers)}, which the labels "
            f"{', '.join(names)} don't have; choose a row of the same data set"
        )
    return form or {**AVERAGES, **{f"iou.{name}": f"IoU {name}" for name in names}}


def compare(metrics: Metrics, key: str | None) -> list[Cell]:
    """Our numbers in the form of the paper's table, beside the row `key` when there is one."""
    paper = find_row(key) if key else {}
    return [
        Cell(metric, heading, paper.get(metric), percent(metrics.value(metric)))
        for metric, heading in headings(key, metrics.names).items()
    ]


def outside(cells: list[Cell], tolerance: float) -> list[Cell]:
    """The cells that the paper has and that ours misses by more than `tolerance` points."""
    expected = [cell for cell in cells if cell.paper is not None]
    return [
        cell
        for cell in expected
        # 1e-9: a difference of exactly the tolerance is within it, whatever its last binary digit.
        if cell.difference is None or abs(cell.difference) > tolerance + 1e-9
    ]


def percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


@cache
def _contents() -> dict:
    return tomllib.loads(TABLES.read_text(encoding="utf-8"))


def _table(block: dict) -> PaperTable:
    columns = dict(zip(block["metrics"], block["headers"], strict=True))
    return PaperTable(
        number=block["number"],
        dataset=block["dataset"],
        title=block["title"],
        columns=columns,
        rows=tuple(
            PaperRow(
                key=f"{block['dataset']}.{row[0]}",
                method=row[1],
                cells=dict(zip(columns, map(_cell, row[2:]), strict=True)),
            )
            for row in block["rows"]
        ),
    )


def _cell(printed: float | str) -> float | None:
    return None if printed == "-" else float(printed)


def _classes(metrics: Iterable[str]) -> set[str]:
    """The classes that metric keys such as iou.head speak of."""
    return {label for metric in metrics if (label := metric.partition(".")[2])}


def _dataset_with(names: tuple[str, ...]) -> str | None:
    """The first data set whose tables speak of some of these classes and of no others."""
    spoken: dict[str, set[str]] = {}
    for table in tables():
        spoken.setdefault(table.dataset, set()).update(_classes(table.columns))
    fitting = (dataset for dataset, classes in spoken.items() if classes and classes <= set(names))
    return next(fitting, None)
