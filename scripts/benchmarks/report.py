"""How the benchmarks' results are shown: numbers with their spread, tables, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lglstm.common.console import plain_console
from lglstm.common.files import atomic_path
from lglstm.common.plotting import Axes, Figure

WIDTH = 120
"""Characters of a line where there is no terminal."""


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: dict[str, float], quartiles: bool = True) -> str:
    """Median, and the quartiles behind it."""
    text = number(values["median"])
    if quartiles:
        text += f" ({number(values['low'])}–{number(values['high'])})"
    return text


def percent(values: dict[str, float]) -> str:
    return f"{100 * values['median']:.0f} %"


def table(title: str, columns: list[str]) -> Table:
    """An empty table: first column to the left, numbers to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left", no_wrap=i == 0)
    return made


def left_out_row(made: Table, label: str, reason: str) -> None:
    made.add_row(label, reason)


def one_at_a_time(case: dict[str, Any]) -> list[str]:
    """What to say where the implementations could not all be held at once."""
    if not case["one_at_a_time"]:
        return []
    return [
        "There is not enough memory for all of them at once: each was started for every single run."
    ]


def machine_line(result: dict[str, Any]) -> str:
    about, versions = result["machine"], result["versions"]
    software = [f"Caffe {version}" for version in versions.values() if "with" in version][:1]
    others = dict.fromkeys(version for version in versions.values() if "with" not in version)
    software += [version if " " in version else f"PyTorch {version}" for version in others]
    return (
        f"{about['cpu']}, {about['threads']} of {about['cores']} cores; {', '.join(software)}; "
        f"medians of {result['repeats']} rounds, in which all take turns, with quartiles"
    )


def console() -> Console:
    made = plain_console(highlight=False)
    return made if made.is_terminal else plain_console(highlight=False, width=WIDTH)


def save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def bars(axes: Axes, labels: list[str], values: list[dict[str, float]], color: str = "C0") -> None:
    """Horizontal bars from top to bottom, with quartiles and the median in figures."""
    places = range(len(labels))
    median = [v["median"] for v in values]
    error = [[v["median"] - v["low"] for v in values], [v["high"] - v["median"] for v in values]]
    axes.barh(places, median, xerr=error, color=color, capsize=3)
    for place, v in zip(places, values, strict=True):
        axes.annotate(
            number(v["median"]), (v["high"], place), xytext=(4, 0), textcoords="offset points",
            va="center",
        )  # fmt: skip
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def implementations_figure(
    cases: list[dict[str, Any]], title: Callable[[dict[str, Any]], str], unit: str
) -> Figure:
    """A panel for each case: the total of each implementation, and its ratio below its name."""
    columns = min(len(cases), 2)
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(6.4 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, case in zip(panels, cases, strict=False):
        shown = [row for row in case["implementations"] if "left_out" not in row]
        labels = [f"{row['label']}\n× {number(row['ratio']['median'])}" for row in shown]
        bars(axes, labels, [row["total_ms"] for row in shown])
        axes.set_title(title(case), fontsize=9)
        axes.set_xlabel(f"{unit} (less is better)")
    for axes in panels[len(cases) :]:
        axes.remove()
    return figure
