"""`lglstm bench scale`: cost of the C++ stack against map size, batch, layers and d."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks import counts, machine
from benchmarks.counts import StackSize
from benchmarks.timing import Measured, of, rounds, total
from benchmarks.worker import Worker

BASE = StackSize(batch=1, height=41, width=41, channels=256, classes=5)
MAPS = [(16, 16), (27, 20), (41, 41), (54, 54), (75, 50), (75, 75), (100, 75), (100, 100)]
MAPS += [(150, 100)]

SERIES: dict[str, list[StackSize]] = {
    "positions": [replace(BASE, height=height, width=width) for height, width in MAPS],
    "batch": [replace(BASE, batch=batch) for batch in range(1, 9)],
    "layers": [replace(BASE, layers=layers) for layers in range(1, 9)],
    "d": [replace(BASE, hidden=hidden) for hidden in (16, 32, 48, 64, 80, 96, 112, 128)],
}
DEGREE = {"positions": 1, "batch": 1, "layers": 1, "d": 2}
"""Weights of a layer are d by (N+1) d: its products grow with the square of d."""


@dataclass(frozen=True)
class Fit:
    """A polynomial through points by least squares, with how far the points are from it.

    coefficients: highest power first. r_squared: 1 is perfect. deviation: the largest distance of
    a point from the curve, relative to the point.
    """

    coefficients: tuple[float, ...]
    r_squared: float
    deviation: float


def fit(x: Iterable[float], y: Iterable[float], degree: int) -> Fit:
    """Fit relative errors, so that small and large points count alike."""
    x, y = np.array(list(x), float), np.array(list(y), float)
    coefficients = np.polyfit(x, y, degree, w=1 / y)
    found = np.polyval(coefficients, x)
    r_squared = 1 - ((y - found) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return Fit(tuple(coefficients), float(r_squared), float((np.abs(y - found) / y).max()))


def run(
    names: Iterable[str] = (),
    *,
    quick: bool,
    repeats: int,
    threads: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure every series (all of SERIES by default); the object that `--json` prints."""
    names = tuple(names) or tuple(SERIES)
    chosen = {name: [_small(s) for s in SERIES[name]] if quick else SERIES[name] for name in names}
    steps, done = sum(map(len, chosen.values())) * (1 + repeats), 0

    def step(_: object = None) -> None:
        nonlocal done
        done += 1
        tell(done, steps)

    with Worker("benchmarks.caffe_stack:CaffeStacks", threads=threads) as worker:
        versions = {"cpp": worker.version()}
    made = [_series(name, sizes, repeats, threads, step) for name, sizes in chosen.items()]
    return {
        "benchmark": "scale",
        "machine": machine.describe(threads),
        "versions": versions,
        "repeats": repeats,
        "base": BASE.as_dict(),
        "series": made,
    }


def value(name: str, size: StackSize) -> int:
    """What varies in a series."""
    attribute = {"positions": size.positions, "d": size.hidden}
    return attribute[name] if name in attribute else getattr(size, name)


def _series(
    name: str, sizes: list[StackSize], repeats: int, threads: int, step: Callable[..., None]
) -> dict[str, Any]:
    """Every size has a net of its own, all in one process; they take turns."""
    with Worker("benchmarks.caffe_stack:CaffeStacks", threads=threads) as worker:
        for i, size in enumerate(sizes):
            worker.build(i, size)
            step()
        runs = {str(i): partial(worker.run, i) for i in range(len(sizes))}
        measured = rounds(runs, repeats, tell=step)
    points: list[dict[str, Any]] = []
    for i, size in enumerate(sizes):
        flop = counts.stack_flop(size).total
        points.append(
            {
                "x": value(name, size),
                "size": size.as_dict(),
                "total_ms": of(measured[str(i)], lambda m: 1e3 * total(m)).as_dict(),
                "gflops": of(measured[str(i)], partial(_gflops, flop)).as_dict(),
            }
        )
    x = [point["x"] for point in points]
    curve = fit(x, [point["total_ms"]["median"] for point in points], DEGREE[name])
    return {
        "name": name,
        "points": points,
        "fit": {
            "coefficients": list(curve.coefficients),
            "r_squared": curve.r_squared,
            "largest_deviation": curve.deviation,
        },
    }


def _gflops(flop: int, measured: Measured) -> float:
    return flop / total(measured) / 1e9


def _small(size: StackSize) -> StackSize:
    """A try of a size in milliseconds."""
    return replace(
        size,
        height=max(size.grid, size.height // 4),
        width=max(size.grid, size.width // 4),
        channels=16,
        hidden=max(1, size.hidden // 8),
    )
