"""Loss curves: raw and smoothed training loss, test points, one run or several in one picture."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path
from lglstm.common.paths import as_text
from lglstm.common.plotting import (
    Axes,
    Figure,
    FuncFormatter,
    Line2D,
    LogLocator,
    NullLocator,
    plain_style,
)
from lglstm.training.log import TOTAL, Run, curve

FORMATS = (".png", ".pdf", ".svg")
# A smoothed point is the mean of this share of the run up to it.
WINDOW = 1 / 30


def draw(runs: list[Run], destination: str | Path) -> None:
    """Draw the runs' loss curves into a .png, .pdf or .svg file, whole or not at all.

    One run whose net has several losses gets a second panel that shows each of them.
    """
    destination = Path(destination)
    if destination.suffix.lower() not in FORMATS:
        raise InputError(
            f"{destination}: unknown picture format; use a name that ends in {', '.join(FORMATS)}"
        )
    with plain_style():
        _draw(runs, destination)
    # A figure is a cycle of references with a canvas of megabytes, and a training makes too few
    # objects for Python to look for cycles by itself.
    gc.collect()


def _draw(runs: list[Run], destination: Path) -> None:
    parts = [name for name in runs[0].losses if name != TOTAL] if len(runs) == 1 else []
    panels = 2 if len(parts) > 1 else 1
    figure = Figure(figsize=(8 * panels, 4.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_totals(axes[0], runs)
    if panels == 2:
        _draw_parts(axes[1], runs[0], parts)
    with atomic_path(destination) as temporary:
        figure.savefig(temporary, dpi=130)


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean over the last points up to each one; at the start over those there are."""
    window = max(1, round(len(values) * WINDOW))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _draw_totals(axes: Axes, runs: list[Run]) -> None:
    named: list[Line2D] = []
    for index, run in enumerate(runs):
        color = f"C{index % 10}"
        name = f"{as_text(run.title)}: " if len(runs) > 1 else ""
        iterations, values = _finite(run.losses[TOTAL])
        axes.plot(iterations, values, color=color, alpha=0.25, linewidth=0.8)
        label = f"{name}training (smoothed)"
        named += axes.plot(iterations, smooth(values), color=color, linewidth=2, label=label)
        if TOTAL in run.tests:
            named += axes.plot(
                *_finite(run.tests[TOTAL]),
                color=color if len(runs) > 1 else "black",
                linestyle="--",
                linewidth=1,
                marker="o",
                markersize=4,
                label=f"{name}test",
            )
    _finish(axes, "Total loss" if len(runs) > 1 else f"{as_text(runs[0].title)}: total loss", named)


def _draw_parts(axes: Axes, run: Run, parts: list[str]) -> None:
    named: list[Line2D] = []
    for index, name in enumerate(parts):
        iterations, values = _finite(run.losses[name])
        color = f"C{index % 10}"
        named += axes.plot(iterations, smooth(values), linewidth=1.5, label=name, color=color)
    _finish(axes, f"{as_text(run.title)}: each loss (smoothed)", named)


def _finite(points: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """A curve without the NaN or infinity that ended a diverged run.

    Nor with what only a damaged file can hold: Caffe's numbers are those of float32.
    """
    iterations, values = curve(points)
    keep = np.abs(values) <= np.finfo(np.float32).max
    return iterations[keep], values[keep]


def _finish(axes: Axes, title: str, named: list[Line2D]) -> None:
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
        few = values.max() < 20 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 6, 8) if few else (1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set(title=title, xlabel="iteration", ylabel="loss")
    axes.grid(alpha=0.3)
    # By itself it leaves out names that begin with an underscore.
    axes.legend(named, [str(line.get_label()) for line in named])
