"""The table and the picture of `lglstm bench scale`."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.report import number, spread, table
from lglstm.common.plotting import Axes, Figure

WHAT = {
    "positions": "positions of the map",
    "batch": "images",
    "layers": "LG-LSTM layers",
    "d": "hidden cells d",
}


def tables(result: dict[str, Any]) -> list[Table | str]:
    return [part for series in result["series"] for part in (_table(series), formula(series))]


def formula(series: dict[str, Any]) -> str:
    """The fitted curve in words and how well it fits."""
    *powers, constant = series["fit"]["coefficients"]
    x = "d" if series["name"] == "d" else series["name"]
    text = f"{constant:.3g}"
    for power, coefficient in enumerate(reversed(powers), start=1):
        sign = "+" if coefficient >= 0 else "−"
        text += f" {sign} {abs(coefficient):.3g} · {x}" + ("²" if power == 2 else "")
    return (
        f"ms = {text}; R² {series['fit']['r_squared']:.4f}, largest deviation "
        f"{100 * series['fit']['largest_deviation']:.1f} %"
    )


def figure(result: dict[str, Any]) -> Figure:
    """A panel for each series: the points with their quartiles, and the fitted curve."""
    count = len(result["series"])
    columns = min(count, 2)
    made = Figure(figsize=(5.6 * columns, 4 * -(-count // columns)), layout="constrained")
    panels = made.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for axes, series in zip(panels, result["series"], strict=False):
        _draw(axes, series)
    return made


def _table(series: dict[str, Any]) -> Table:
    made = table(WHAT[series["name"]], [series["name"], "total ms", "GFLOP/s"])
    for point in series["points"]:
        made.add_row(
            number(point["x"]) if point["x"] >= 100 else str(point["x"]),
            spread(point["total_ms"]),
            spread(point["gflops"], False),
        )
    return made


def _draw(axes: Axes, series: dict[str, Any]) -> None:
    x = np.array([point["x"] for point in series["points"]])
    times = [point["total_ms"] for point in series["points"]]
    median = np.array([t["median"] for t in times])
    error = [median - [t["low"] for t in times], [t["high"] for t in times] - median]
    fitted = np.linspace(0 if x.min() < 0.3 * x.max() else x.min(), x.max(), 100)
    curve = np.polyval(series["fit"]["coefficients"], fitted)
    axes.plot(fitted, curve, color="C1")
    axes.errorbar(x, median, error, fmt="o", color="C0", capsize=3)
    axes.set_title(formula(series), fontsize=9)
    axes.set(xlabel=WHAT[series["name"]], ylabel="forward + backward, ms", ylim=(0, None))
    axes.grid(alpha=0.3)
